"""The dirty curve: distinct pages a guest writes within a time, since its log was clean.

A rate alone misleads: a guest that rewrites the same pages dirties few of them however long a
round takes. The curve is what decides how large the next round will be.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass


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
        times, pages = self.seconds, self.pages
        if not times or seconds <= 0:
            return 0.0
        after = min(bisect_left(times, seconds), len(times) - 1)
        begun, found = (times[after - 1], pages[after - 1]) if after else (0.0, 0)
        slope = (pages[after] - found) / (times[after] - begun)
        return min(float(self.ram_pages), found + slope * (seconds - begun))


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
