"""The link between two relays, as their connections show it: how much waits, and how fast it goes."""

from __future__ import annotations

import time

from pipeline.packets.pacing import Wire as PacedWire
from pipeline.packets.pacing import WireUse

FADE = 0.8
"""What an earlier look's share of the measured speed is worth at the next."""

FULL_BYTES = 16 << 10
"""With so much waiting the link is busy."""

UNKNOWN_NS = 1_000_000_000


class LinkWire(PacedWire):
    """Paced where the user set a limit, and measured. One for all migrations of a relay."""

    def __init__(self, bytes_per_second: int) -> None:
        super().__init__(bytes_per_second)
        self._busy_ns = self._idle_ns = 0
        self._faded_bytes = self._faded_ns = 0.0
        self._looked_ns = time.monotonic_ns()
        self._crossed = 0
        self._waiting = 0
        self._was_full = False

    def look(self, crossed_bytes: int, waiting_bytes: int) -> None:
        """So many bytes have crossed since the relay began, and so many wait now."""
        now = time.monotonic_ns()
        took, moved = now - self._looked_ns, crossed_bytes - self._crossed
        full = waiting_bytes >= FULL_BYTES
        if self._was_full and full and took > 0 and moved >= 0:
            self._faded_bytes = self._faded_bytes * FADE + moved
            self._faded_ns = self._faded_ns * FADE + took
            self._busy_ns += took
            self.measured_bytes_per_second = int(self._faded_bytes * 1e9 / self._faded_ns)
        else:
            self._idle_ns += took
        self._looked_ns, self._crossed = now, crossed_bytes
        self._waiting, self._was_full = waiting_bytes, full

    def is_full(self) -> bool:
        """Whether it had enough to do, at the last look."""
        return self._was_full

    def is_unknown(self) -> bool:
        return not (self.limit_bytes_per_second or self.measured_bytes_per_second)

    def slack_ns(self) -> int:
        """How long nothing need be sent before the link runs dry."""
        if self.is_unknown():
            return UNKNOWN_NS if self._waiting else 0
        rate = self.measured_bytes_per_second
        return max(super().slack_ns(), self._waiting * 1_000_000_000 // rate if rate else 0)

    def use(self) -> WireUse:
        if self.limit_bytes_per_second:
            return super().use()
        rate = self.measured_bytes_per_second
        return WireUse(float(rate) if rate else None, self._busy_ns, self._idle_ns)
