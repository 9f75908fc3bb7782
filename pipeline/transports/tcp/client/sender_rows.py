"""What each worker that sends has done, in shared memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from guestmem.segment import mapped_segment

CARRIED, CONNECTION, SENT_BYTES, UNACKNOWLEDGED, FULL, CALLING = range(6)
COLUMNS = 8
"""Of 64-bit numbers: a cache line a sender."""


class SenderRows:
    """A row a sender, written by it alone.

    CARRIED: packets done with, sent or lost. CONNECTION: the generation of its connection (upper 32 bits),
    and packets written whole on that one. SENT_BYTES: of packets done with. UNACKNOWLEDGED: bytes of them
    that the socket still holds, less those of the packet under way that are through. FULL: 1 when bytes wait
    that the network takes no faster. CALLING: 1 while it has no connection and calls for one.
    """

    def __init__(self, senders: int) -> None:
        """Create it. Raises OSError."""
        self._mapping = mapped_segment("senders", senders * COLUMNS * 8)
        self.rows: npt.NDArray[np.int64] = np.frombuffer(self._mapping, np.int64).reshape(senders, COLUMNS)

    def carried(self) -> int:
        """Packets of all senders."""
        return int(self.rows[:, CARRIED].sum())

    def acknowledged(self) -> int:
        """Bytes that all senders are rid of."""
        return int(self.rows[:, SENT_BYTES].sum() - self.rows[:, UNACKNOWLEDGED].sum())

    def full(self) -> bool:
        """Whether most senders' sockets are full: the wire is what they wait for. Those that have had nothing
        to send yet say nothing about it."""
        full = self.rows[:, FULL]
        used = int(np.count_nonzero(self.rows[:, SENT_BYTES] + full))
        return used > 0 and 2 * int(full.sum()) >= used

    def calling(self, number: int) -> bool:
        """Whether a sender has no connection now."""
        return bool(self.rows[number, CALLING])

    def connections(self) -> list[list[int]]:
        """[generation, packets] of each sender, as SETTLE says it."""
        return [[value >> 32, value & 0xFFFFFFFF] for value in self.rows[:, CONNECTION].tolist()]
