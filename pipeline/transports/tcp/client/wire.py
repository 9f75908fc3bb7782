"""The wire as a socket shows it: how much waits for it, and how fast that goes.

Nobody knows a link's bandwidth beforehand. What the channels have made and the peer has not acknowledged
yet is the wire's backlog. While the sockets are full the wire is busy, and what is acknowledged meanwhile
is its speed.
"""

from __future__ import annotations

import time

from guestmem.page import PAGE_BYTES
from pipeline.packets.counters import Count, Counters
from pipeline.packets.pacing import SMOOTH_SECONDS, BusySpeed, Wire, WireUse
from pipeline.packets.round_list import SMALL_PAGES
from pipeline.transports.tcp.client.sender_rows import SenderRows

BEGAN = 5
"""Of the wire's shared state: when a channel first asked (monotonic ns)."""

UNKNOWN_NS = 1_000_000_000
"""The slack of a wire that nothing is known of: any packet may take its time."""

PROVEN_BYTES = 512 << 10
"""A wire that took so much and lets nothing wait is none to save."""


class SocketWire(Wire):
    """Paced as any wire where the user set a limit, and measured."""

    def __init__(self, bytes_per_second: int, sent: Counters, rows: SenderRows) -> None:
        """`bytes_per_second` 0 is a wire whose limit shows only when it is used."""
        super().__init__(bytes_per_second)
        self._sent = sent
        self._rows = rows
        self._speed = BusySpeed()

    def is_unknown(self) -> bool:
        return not (self.limit_bytes_per_second or self.measured_bytes_per_second)

    def fitting_pages(self, most: int) -> int:
        """Small ones until the wire has shown that it takes what comes, and where it is slow."""
        rate = self.measured_bytes_per_second
        if rate:
            return min(most, max(SMALL_PAGES, int(rate * SMOOTH_SECONDS) // PAGE_BYTES))
        return most if self.limit_bytes_per_second or self._is_proven() else min(most, SMALL_PAGES)

    def _is_proven(self) -> bool:
        """Whether a wire of unknown speed has taken something, and lets nothing wait."""
        return self._rows.acknowledged() >= PROVEN_BYTES and not self._rows.full()

    def slack_ns(self) -> int:
        """How long the channels may send nothing before the wire runs dry."""
        rate, acknowledged = self.measured_bytes_per_second, self._rows.acknowledged()
        if self.is_unknown():
            if self._is_proven():
                return 0
            rate = self._at_least(acknowledged)
            if not rate:
                return UNKNOWN_NS
        backlog = int(self._sent.rows[:, Count.WIRE_BYTES].sum()) - acknowledged
        waiting = backlog * 1_000_000_000 // rate if rate else 0
        return max(super().slack_ns(), waiting)

    def _at_least(self, acknowledged: int) -> int:
        """Bytes per second that the wire has carried since the first was to go: it can do that, or more."""
        now, began = time.monotonic_ns(), self._state[BEGAN]
        if not began:
            self._state[BEGAN] = now
            return 0
        return acknowledged * 1_000_000_000 // max(1, now - began)

    def use(self) -> WireUse:
        """How it was used so far. Called by the coordinator alone, at every look."""
        speed = self._speed
        if found := speed.look(self._rows.acknowledged(), full=bool(self._rows.full())):
            self.measured_bytes_per_second = found
        rate: float | None = self.measured_bytes_per_second or None
        if self.limit_bytes_per_second:
            rate = min(rate or self.limit_bytes_per_second, self.limit_bytes_per_second)
        return WireUse(rate, speed.busy_ns, speed.idle_ns)
