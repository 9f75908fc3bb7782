"""How long a QAT device takes: a model of one physical function.

A request is cut into chunks of `hw_buff_sz`. Each chunk occupies one engine for
`start + bytes / engine rate`, and all chunks of a device together never exceed its capacity. The
figures are derived, not measured: the Linux driver's reference maximum of a 4xxx with service dc is
45 Gbit/s; QATzip issue 75 shows 4.5 to 5.0 GB/s per device; it has eight engines. No source that
can be read gives the latency of a single request, so the engine rate is its lower bound, capacity / 8.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

CAPACITY_BYTES_PER_SECOND = 4_800_000_000
ENGINES = 8
START_SECONDS = 10e-6


@dataclass
class DeviceModel:
    """One device: when each of its engines, and the device as a whole, will have finished their work."""

    capacity: float = CAPACITY_BYTES_PER_SECOND
    engines: int = ENGINES
    start_seconds: float = START_SECONDS
    _engine_free: list[float] = field(default_factory=list)
    _whole_free: float = 0.0

    def __post_init__(self) -> None:
        self._engine_free = [0.0] * self.engines

    @property
    def engine_rate(self) -> float:
        """Bytes per second of one engine."""
        return self.capacity / self.engines

    def finish(self, now: float, chunk_bytes: list[int]) -> float:
        """Accept a request at time `now`; return when its last chunk is done. Both in seconds."""
        last = now
        for size in chunk_bytes:
            begins = max(now, heapq.heappop(self._engine_free))
            ends = begins + self.start_seconds + size / self.engine_rate
            self._whole_free = max(self._whole_free, now) + size / self.capacity
            ends = max(ends, self._whole_free)
            heapq.heappush(self._engine_free, ends)
            last = max(last, ends)
        return last


def chunks(size: int, chunk: int) -> list[int]:
    """The sizes of the pieces that a request of `size` bytes is cut into."""
    return [min(chunk, size - start) for start in range(0, size, chunk)]
