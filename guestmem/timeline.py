"""How much the guest has written at each moment: its own view of a migration."""

from __future__ import annotations

import math
import time
from collections import deque

import numpy as np

STEP_SECONDS = 0.02
"""Between two recorded moments, at least."""

KEPT_STEPS = 45_000
"""Recorded moments that are kept: a quarter of an hour."""


class Timeline:
    """The bytes written up to each of the recorded moments."""

    def __init__(self) -> None:
        self.total_bytes = 0
        self._steps: deque[tuple[float, int]] = deque([(time.monotonic(), 0)], KEPT_STEPS)

    def add(self, size_bytes: int) -> None:
        """Add bytes that were just written."""
        self.total_bytes += size_bytes
        now = time.monotonic()
        if now - self._steps[-1][0] >= STEP_SECONDS:
            self._steps.append((now, self.total_bytes))

    def note(self) -> None:
        """Record this moment, because the guest starts or stops here."""
        self._steps.append((time.monotonic(), self.total_bytes))

    def slowest_second(self, since: float, until: float) -> float | None:
        """The fewest bytes written in any whole second that begins between `since` - 1 and `until`.

        Times are of the monotonic clock. None when no whole second of the guest's life does.
        """
        times = np.array([moment for moment, _ in self._steps])
        written = np.array([total for _, total in self._steps], float)
        first = max(times[0], since - 1)
        last = min(times[-1] - 1, until)
        if last < first or math.isinf(first):
            return None
        starts = np.union1d(times[(times >= first) & (times <= last)], [first, last])
        within = np.interp(starts + 1, times, written) - np.interp(starts, times, written)
        return float(within.min())
