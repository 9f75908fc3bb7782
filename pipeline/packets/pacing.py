"""The bandwidth limit: one wire for all channels, which one packet uses at a time.

Each packet reserves the wire for as long as its bytes take at `max_bandwidth`, and is delivered
when its last byte has crossed. That is smooth by construction: nothing is saved up beyond
MAX_CREDIT_NS for a wire that stood idle.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from guestmem.page import PAGE_BYTES
from guestmem.segment import create_segment, map_segment
from pipeline.packets.round_list import PACE_LOCK, record_lock

MAX_CREDIT_NS = 10_000_000
"""Idle time that may be made good: what a channel loses by waking late, 10 ms at most."""

FADE = 0.8
"""What an earlier look's share of the measured speed is worth at the next, 20 to 50 ms later."""

SMOOTH_SECONDS = 0.05
"""No packet holds more than this much wire time, so that none is a burst by itself."""


def paced_packet_pages(packet_pages: int, bytes_per_second: int) -> int:
    """Pages a packet may hold at this bandwidth: `packet_pages`, or fewer on a slow wire."""
    if not bytes_per_second:
        return packet_pages
    return max(1, min(packet_pages, int(bytes_per_second * SMOOTH_SECONDS) // PAGE_BYTES))


@dataclass(frozen=True)
class WireUse:
    """What the wire carries while it is busy (None: nothing limits it), and how long it was busy so far
    and stood idle between."""

    bytes_per_second: float | None
    busy_ns: int
    idle_ns: int


FULL_SHARE = 0.7
"""Of the time between two looks that a full wire had something to carry, by the kernel's coarse ticks."""


class BusySpeed:
    """What a wire carries while it has enough to do, measured at looks some ms apart."""

    def __init__(self) -> None:
        self.busy_ns = self.idle_ns = 0
        self.was_full = False
        """Whether it had enough to do at the last look."""
        self._faded_bytes = self._faded_ns = 0.0
        self._looked_ns = time.monotonic_ns()
        self._crossed = 0

    def look(self, crossed_bytes: int, *, full: bool, sending_ns: int | None = None) -> int:
        """So many bytes have crossed so far: bytes per second while it is busy, 0 where no look says so.

        `sending_ns` is for how long of the time since the last look it had something to carry, where known.
        """
        now = time.monotonic_ns()
        passed, moved = now - self._looked_ns, crossed_bytes - self._crossed
        sending = passed if sending_ns is None else min(passed, sending_ns)
        full = full and sending >= FULL_SHARE * passed
        busy = full and self.was_full and moved >= 0
        self._looked_ns, self._crossed, self.was_full = now, crossed_bytes, full
        if not busy:
            self.idle_ns += passed
            return 0
        self.busy_ns += sending
        self.idle_ns += passed - sending
        self._faded_bytes = self._faded_bytes * FADE + moved
        self._faded_ns = self._faded_ns * FADE + sending
        return max(1, int(self._faded_bytes * 1e9 / self._faded_ns)) if self._faded_bytes else 0


class Wire:
    """The time until which the wire is taken, shared by all channels, and how it was used."""

    def __init__(self, bytes_per_second: int) -> None:
        """`bytes_per_second` 0 is a wire without a limit."""
        self.limit_bytes_per_second = bytes_per_second
        self._fd = create_segment("wire", PAGE_BYTES, reserve=True)
        self._state = memoryview(map_segment(self._fd, writable=True)).cast("q")[:6]

    def reserve(self, size_bytes: int) -> int:
        """Take the wire for `size_bytes`; return when they are across (monotonic ns, or 0)."""
        if not self.limit_bytes_per_second:
            return 0
        duration = size_bytes * 1_000_000_000 // self.limit_bytes_per_second
        state = self._state
        with record_lock(self._fd, PACE_LOCK):
            now, free_at = time.monotonic_ns(), state[0]
            across = max(free_at, now - MAX_CREDIT_NS) + duration
            state[0] = across
            state[1] += size_bytes
            state[2] += duration
            if free_at:
                state[3] += max(0, now - MAX_CREDIT_NS - free_at)
        return across

    def slack_ns(self) -> int:
        """How long the channels may send nothing before wire time is lost; not above 0 without a limit.

        What the wire is taken for from now on, and half of the idle time that may be made good.
        """
        if not self.limit_bytes_per_second:
            return 0
        return int(self._state[0]) - time.monotonic_ns() + MAX_CREDIT_NS // 2

    def fitting_pages(self, most: int) -> int:
        """Pages of the next packet, at most `most`: fewer on a wire that turns out to be slow."""
        return most

    def use(self) -> WireUse:
        _, crossed, busy, idle, *_ = self._state
        return WireUse(crossed / busy * 1e9 if busy else None, busy, idle)

    def is_unknown(self) -> bool:
        """Whether it may turn out to be slow: nobody knows its speed yet."""
        return False

    @property
    def measured_bytes_per_second(self) -> int:
        """What it turned out to carry, for all processes; 0 while that is not known."""
        return int(self._state[4])

    @measured_bytes_per_second.setter
    def measured_bytes_per_second(self, value: int) -> None:
        self._state[4] = value


def sleep_until(monotonic_ns: int) -> None:
    """Sleep until a time of the monotonic clock; not at all when it has passed."""
    left = monotonic_ns - time.monotonic_ns()
    if left > 0:
        time.sleep(left / 1e9)
