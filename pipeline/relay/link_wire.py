"""The link between two relays, as their connections show it: how much waits, and how fast it goes."""

from __future__ import annotations

from pipeline.packets.pacing import BusySpeed, WireUse
from pipeline.packets.pacing import Wire as PacedWire

FULL_BYTES = 16 << 10
"""With so much waiting the link is busy."""

UNKNOWN_NS = 1_000_000_000


class LinkWire(PacedWire):
    """Paced where the user set a limit, and measured. One for all migrations of a relay."""

    def __init__(self, bytes_per_second: int) -> None:
        super().__init__(bytes_per_second)
        self._speed = BusySpeed()
        self._waiting = 0

    def look(
        self, crossed_bytes: int, waiting_bytes: int, *, held_back: bool, sending_ns: int | None = None
    ) -> None:
        """So many bytes have crossed since the relay began, and so many wait now.

        `sending_ns`: for how long it had something to carry since the last look. A relay that does not come
        to its turn, on CPUs that are full, leaves it without, and that is not the link's speed. Where nobody
        counts that, `held_back` says that QEMU was not read as fast as it might have been."""
        self._waiting = waiting_bytes
        full = waiting_bytes >= FULL_BYTES and not (held_back and sending_ns is None)
        if found := self._speed.look(crossed_bytes, full=full, sending_ns=sending_ns):
            self.measured_bytes_per_second = found

    def is_full(self) -> bool:
        """Whether it had enough to do, at the last look."""
        return self._speed.was_full

    @property
    def bytes_per_second(self) -> int:
        """What it carries, by the user's limit and by what was seen; 0 while nothing is known."""
        known = [rate for rate in (self.limit_bytes_per_second, self.measured_bytes_per_second) if rate]
        return int(min(known, default=0))

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
        return WireUse(float(rate) if rate else None, self._speed.busy_ns, self._speed.idle_ns)
