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
SILLY_SHARE, MOST_OF_BLOCK_BYTES = 3, 192 << 10
"""Less than so much of a window is not read: small blocks compress badly (the silly window of RFC 813)."""

LOOK_SECONDS = 0.05
MEMORY_SECONDS, NEVER = 3.0, 1e9
QUICKER, SLOWER = 2.0, 0.8
EASY_SHARE = 0.05
"""What shrinks to less says nothing of the pages that are left at the end."""

RATIO_FADE, AHEAD, BURST_SECONDS = 0.98, 1.25, 0.02
GRANT_SECONDS = 0.005
"""What comes in such a time is read at once: a block for every few KB costs CPU, and compresses badly."""

BOOST_STEP, MAX_BOOST = 1.1, 1000.0


class Window:
    """Bytes that were read and are not done with at the other side."""

    def __init__(self) -> None:
        self.limit_bytes = FIRST_BYTES
        self.under_way_bytes = self.peak_bytes = 0
        self.rate_bytes_per_second = 0.0
        self.round_trip_seconds = 0.0
        self._looked_at = self._turned_at = time.monotonic()
        self._quickest = [NEVER, NEVER]
        self._done_bytes = 0
        self._was_full = False

    def room(self, under_way_bytes: int, streams: int) -> int:
        """Bytes that may be read now of one of so many streams, of which so much is under way.

        Each has its share: QEMU's multifd connections wait for each other, and one that had all of the room
        would keep the others from bringing what it waits for.
        """
        share = max(MIN_STREAM_BYTES, self.limit_bytes // max(1, streams))
        left = share - under_way_bytes
        if left < max(MIN_READ_BYTES, min(MOST_OF_BLOCK_BYTES, share // SILLY_SHARE)):
            self._was_full = True
            return 0
        return left

    def took(self, size_bytes: int) -> None:
        self.under_way_bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self.under_way_bytes)

    def gave(self, size_bytes: int, took_seconds: float) -> None:
        """So much is done with, and was under way for so long."""
        self._quickest[0] = min(self._quickest[0], took_seconds)
        self.under_way_bytes -= size_bytes
        self._done_bytes += size_bytes
        now = time.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._look(now)

    def _least_seconds(self, now: float) -> float:
        """What a block takes that waits for nothing: the least of the last seconds. It is more than the round
        trip where these CPUs have other work as well."""
        if now - self._turned_at > MEMORY_SECONDS:
            self._quickest, self._turned_at = [NEVER, self._quickest[0]], now
        least = min(self._quickest)
        return max(self.round_trip_seconds, least if least < NEVER else 0.0)

    def _look(self, now: float) -> None:
        """Only a window that was full says what the other side can take."""
        rate = self._done_bytes / (now - self._looked_at)
        if self._was_full:
            self.rate_bytes_per_second = rate
            aim = rate * (self._least_seconds(now) + PATIENCE_SECONDS)
            low, high = self.limit_bytes * SLOWER, self.limit_bytes * QUICKER
            self.limit_bytes = int(max(MIN_BYTES, min(MAX_BYTES, max(low, min(high, aim)))))
        self._looked_at, self._done_bytes, self._was_full = now, 0, False


class Pace:
    """How fast QEMU is read: not much faster than the link carries what does not compress by itself.

    QEMU decides by the rate of its last 100 ms whether what is left fits into the downtime limit. Memory
    that compresses a hundredfold would make it believe in a link that the next pages do not find, and it
    would stop its guest for seconds (measured: 2065 ms with a limit of 300).
    """

    def __init__(self) -> None:
        self._plain = self._payload = 0.0
        self._hard_share = 1.0
        self._boost = 1.0
        self.was_limit = False
        """Whether it has held QEMU back since the last look."""
        self._tokens = 0.0
        self._filled_at = time.monotonic()

    def saw(self, plain_bytes: int, payload_bytes: int) -> None:
        """A block was compressed."""
        hard = payload_bytes >= EASY_SHARE * plain_bytes
        self._hard_share += (hard - self._hard_share) / 8
        if hard:
            self._plain = self._plain * RATIO_FADE + plain_bytes
            self._payload = self._payload * RATIO_FADE + payload_bytes

    def limit_bytes_per_second(self, link_bytes_per_second: int) -> float:
        """Of the guest's bytes; 0 while the link or the ratio is not known."""
        if not (link_bytes_per_second and self._payload):
            return 0.0
        return AHEAD * self._boost * link_bytes_per_second * self._plain / self._payload

    def look(self, *, link_is_full: bool) -> None:
        """A link that is not full, although what is hard is held back for it, carries more than it seemed."""
        if link_is_full:
            self._boost = 1.0
        elif self.was_limit and self._hard_share > 0.5:
            self._boost = min(MAX_BOOST, self._boost * BOOST_STEP)
        self.was_limit = False

    def room(self, link_bytes_per_second: int) -> int:
        """Bytes that may be read now."""
        rate, now = self.limit_bytes_per_second(link_bytes_per_second), time.monotonic()
        if not rate:
            return MAX_BYTES
        most = max(2 * MIN_STREAM_BYTES, rate * BURST_SECONDS)
        self._tokens = min(most, self._tokens + rate * (now - self._filled_at))
        self._filled_at = now
        if self._tokens >= max(MIN_READ_BYTES, min(MOST_OF_BLOCK_BYTES, rate * GRANT_SECONDS)):
            return int(self._tokens)
        self.was_limit = True
        return 0

    def took(self, size_bytes: int) -> None:
        """So much was read."""
        self._tokens -= size_bytes
