"""Lines about strangers: whoever sends many connections shall not fill a log with them."""

from __future__ import annotations

import time
from collections.abc import Callable

PERIOD_SECONDS = 1.0


class OneLineASecond:
    """Says the first line at once, then at most one a second: the last, and how many were left out."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said_at: float | None = None
        self._left_out, self._last = 0, ""

    def say(self, text: str) -> None:
        self._left_out += 1
        self._last = text
        self.tick()

    def tick(self) -> None:
        """Call it now and then: what was left out is said when its second is over."""
        now = time.monotonic()
        if not self._left_out or (self._said_at is not None and now - self._said_at < PERIOD_SECONDS):
            return
        self.flush()

    def flush(self) -> None:
        """Say what is left, now."""
        if self._left_out:
            others = f" (and {self._left_out - 1} others were refused)" if self._left_out > 1 else ""
            self._say(self._last + others)
            self._left_out, self._said_at = 0, time.monotonic()
