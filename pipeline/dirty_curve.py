"""The dirty curve: distinct pages a guest writes within a time, since its log was clean.

A rate alone misleads: a guest that rewrites the same pages dirties few of them however long a
round takes. The curve is what decides how large the next round will be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DirtyCurve:
    """Metrics points, ascending in time; (0, 0) is always one.

    Between points it is linear; behind the last it goes on as between the last two, up to all of RAM.
    """

    seconds: tuple[float, ...]
    pages: tuple[int, ...]
    ram_pages: int

    def pages_after(self, seconds: float) -> float:
        """Distinct pages written `seconds` after a sync."""
        times, pages = (0.0, *self.seconds), (0, *self.pages)
        if seconds <= times[-1] or len(times) == 1:
            return float(np.interp(seconds, times, pages))
        slope = (pages[-1] - pages[-2]) / (times[-1] - times[-2])
        return min(self.ram_pages, pages[-1] + slope * (seconds - times[-1]))


class CurveRecorder:
    """Collects the points of one round."""

    def __init__(self, ram_pages: int) -> None:
        self._ram_pages = ram_pages
        self._points: dict[float, int] = {}

    def restart(self) -> None:
        self._points = {}

    def add(self, seconds: float, pages: int) -> None:
        """`pages` were dirty `seconds` after the sync."""
        if seconds > 0:
            self._points[seconds] = pages

    def curve(self) -> DirtyCurve:
        times = sorted(self._points)
        return DirtyCurve(tuple(times), tuple(self._points[t] for t in times), self._ram_pages)
