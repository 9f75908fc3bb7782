"""A point in time by which something must have happened."""

from __future__ import annotations

import time


class Deadline:
    """A point of the monotonic clock, `seconds` from now; 0 seconds is never."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds if seconds else None

    def passed(self) -> bool:
        return self._at is not None and time.monotonic() >= self._at
