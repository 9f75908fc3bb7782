"""A round's work: the list of page numbers, and how channels claim their share of it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from guestmem.page import PAGE_BYTES
from guestmem.segment import create_segment, map_segment

STATE_BYTES = PAGE_BYTES
CLAIM_LOCK, PACE_LOCK = 0, 1
"""Bytes of the segment that stand for the two locks."""

CLAIM_PAGES = (2 << 20) // PAGE_BYTES
"""Pages claimed at once at most (or one packet), however small the packets: claims stay rare."""

CLAIM_SHARE = 64
"""A claim is at most this part of what is left, so that channels end a round side by side, and
one packet at least."""

SMALL_PAGES = (512 << 10) // PAGE_BYTES
TAIL_SHARE = 16
"""Towards the end of a round packets become smaller, down to SMALL_PAGES: at most this part of the rest."""

LIST_STEP_PAGES = 1 << 18


@contextmanager
def record_lock(fd: int, byte: int) -> Iterator[None]:
    """Exclude other processes meanwhile: a POSIX record lock on one byte of a segment.

    The kernel drops it when its holder dies, which no lock in shared memory does. What it
    guards is written in one store, so a dead holder leaves nothing half done.
    """
    fcntl.lockf(fd, fcntl.LOCK_EX, 1, byte)
    try:
        yield
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN, 1, byte)


class RoundList:
    """The page numbers of the round, in shared memory: 4 bytes a page of guest RAM.

    The coordinator lays out a round while no channel is claiming; channels then claim
    contiguous runs of the list until it is used up.
    """

    def __init__(self, ram_pages: int) -> None:
        """Create the list. Raises OSError when there is no memory for it."""
        self.size_bytes = STATE_BYTES + 4 * ram_pages
        self.fd = create_segment("round", self.size_bytes, reserve=True)
        self._ram_pages = ram_pages
        self.attach()

    def attach(self) -> None:
        """Map the list in this process."""
        self.mapping = map_segment(self.fd, writable=True)
        self._state = np.frombuffer(self.mapping, np.uint64, 3)
        self.pages: npt.NDArray[np.uint32] = np.frombuffer(
            self.mapping, np.uint32, self._ram_pages, STATE_BYTES
        )

    @property
    def number(self) -> int:
        """The round that is being sent, from 1; 0 before the first."""
        return int(self._state[0])

    def list_all(self) -> int:
        """List every page of RAM; returns how many. Called by the coordinator, as `begin` is."""
        for start in range(0, self._ram_pages, LIST_STEP_PAGES):
            end = min(start + LIST_STEP_PAGES, self._ram_pages)
            self.pages[start:end] = np.arange(start, end)
        return self._ram_pages

    def begin(self, number: int, count: int) -> None:
        """Open a round of the first `count` pages that `pages` lists, behind the barrier."""
        self._state[1] = count
        self._state[2] = 0
        self._state[0] = number

    def claim(self, packet_pages: int) -> npt.NDArray[np.uint32]:
        """The next pages of the list, for packets of at most so many; empty when all are claimed."""
        with record_lock(self.fd, CLAIM_LOCK):
            start, count = int(self._state[2]), int(self._state[1])
            size = min(packet_pages, max(SMALL_PAGES, (count - start) // TAIL_SHARE))
            pages = min(CLAIM_PAGES, (count - start) // CLAIM_SHARE)
            end = min(start + max(1, pages // size) * size, count)
            if start < end:
                self._state[2] = end
        claimed: npt.NDArray[np.uint32] = self.pages[start:end].copy()
        return claimed

    def unclaimed(self) -> int:
        """Pages of the round that no channel has claimed yet."""
        return int(self._state[1]) - int(self._state[2])
