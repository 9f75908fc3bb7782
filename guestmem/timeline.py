"""What the guest has written, over time: its own view of a migration."""

from __future__ import annotations

import math
import time
from collections import deque

import numpy as np

STEP_SECONDS = 0.02
KEPT_STEPS = 45_000
"""A quarter of an hour."""


class Timeline:
    """Bytes written up to each of many moments."""

    def __init__(self) -> None:
        self.total_bytes = 0
        self._steps: deque[tuple[float, int]] = deque([(time.monotonic(), 0)], KEPT_STEPS)

    def add(self, size_bytes: int) -> None:
        """Count bytes that were just written."""
        self.total_bytes += size_bytes
        now = time.monotonic()
        if now - self._steps[-1][0] >= STEP_SECONDS:
            self._steps.append((now, self.total_bytes))

    def note(self) -> None:
        """Output this moment: the guest starts or stops here."""
        self._steps.append((time.monotonic(), self.total_bytes))

    def slowest_second(self, since: float, until: float) -> float | None:
        """The fewest bytes of any whole second that begins between `since` - 1 and `until`.

        Times are of the monotonic clock. None where no whole second of the guest's life does.
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
