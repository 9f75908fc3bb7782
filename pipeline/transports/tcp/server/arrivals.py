"""What has arrived, in shared memory of the receive side: the round, the pages, the packets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from guestmem.page import PAGE_BYTES
from guestmem.segment import mapped_segment

ROUND, APPLIED_NS = 0, 1


class Arrivals:
    """`applied`: one byte a page, 1 when it was applied in this round. `whole`: 1 when it holds what some
    round brought, unharmed since. `delivered`: for each connection its generation (upper 32 bits) and the
    packets that came over it, written by the connection's worker alone.

    A page is written by one worker a round, the one that clears and sets its bytes.
    """

    def __init__(self, pages: int, connections: int) -> None:
        """Create it, nothing arrived. Raises OSError."""
        self.mapping = mapped_segment("arrivals", PAGE_BYTES + 8 * connections + 2 * pages)
        self._state = memoryview(self.mapping)[:16].cast("q")
        self.delivered = memoryview(self.mapping)[PAGE_BYTES : PAGE_BYTES + 8 * connections].cast("q")
        maps = np.frombuffer(self.mapping, np.uint8, 2 * pages, PAGE_BYTES + 8 * connections)
        self.applied: npt.NDArray[np.uint8] = maps[:pages]
        self.whole: npt.NDArray[np.uint8] = maps[pages:]
        self._state[ROUND] = 1

    @property
    def round(self) -> int:
        """The round whose packets are taken, from 1."""
        return int(self._state[ROUND])

    @property
    def applied_ns(self) -> int:
        """When the last packet was applied (monotonic clock); 0 before the first."""
        return int(self._state[APPLIED_NS])

    def note(self, now_ns: int) -> None:
        self._state[APPLIED_NS] = now_ns

    def end_round(self) -> None:
        """The next round begins. Called when no packet of this one can come."""
        self.applied[:] = 0
        self._state[ROUND] += 1

    def packets(self, number: int) -> tuple[int, int]:
        """(generation, packets) of a connection."""
        value = self.delivered[number]
        return value >> 32, value & 0xFFFFFFFF
