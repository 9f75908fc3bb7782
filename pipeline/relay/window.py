"""How much may be under way: what the destination takes in a round trip and 30 ms.

What a relay has read counts as sent for QEMU. When QEMU pauses its guest to send the rest, all of it is still
to be carried, so it is downtime that QEMU does not know of: it is bounded by time, at the rate that the other
side really takes (bytes of the guest a second, decompressed).
"""

from __future__ import annotations

import time

MIN_BYTES, FIRST_BYTES, MAX_BYTES = 256 << 10, 4 << 20, 64 << 20
MIN_STREAM_BYTES, MIN_READ_BYTES = 64 << 10, 16 << 10
PATIENCE_SECONDS = 0.03
LOOK_SECONDS = 0.05
QUICKER, SLOWER = 2.0, 0.8


class Window:
    """Bytes that were read and are not done with at the other side."""

    def __init__(self) -> None:
        self.limit_bytes = FIRST_BYTES
        self.under_way_bytes = self.peak_bytes = 0
        self.rate_bytes_per_second = 0.0
        self.round_trip_seconds = 0.0
        self._looked_at = time.monotonic()
        self._done_bytes = 0
        self._was_full = False

    def room(self, under_way_bytes: int, streams: int) -> int:
        """Bytes that may be read now of one of so many streams, of which so much is under way.

        Each has its share: QEMU's multifd connections wait for each other, and one that had all of the room
        would keep the others from bringing what it waits for.
        """
        left = max(MIN_STREAM_BYTES, self.limit_bytes // max(1, streams)) - under_way_bytes
        if left < MIN_READ_BYTES:
            self._was_full = True
            return 0
        return left

    def took(self, size_bytes: int) -> None:
        self.under_way_bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self.under_way_bytes)

    def gave(self, size_bytes: int) -> None:
        """So much is done with."""
        self.under_way_bytes -= size_bytes
        self._done_bytes += size_bytes
        now = time.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._look(now)

    def _look(self, now: float) -> None:
        """Only a window that was full says what the other side can take."""
        rate = self._done_bytes / (now - self._looked_at)
        if self._was_full:
            self.rate_bytes_per_second = rate
            aim = rate * (self.round_trip_seconds + PATIENCE_SECONDS)
            low, high = self.limit_bytes * SLOWER, self.limit_bytes * QUICKER
            self.limit_bytes = int(max(MIN_BYTES, min(MAX_BYTES, max(low, min(high, aim)))))
        self._looked_at, self._done_bytes, self._was_full = now, 0, False
