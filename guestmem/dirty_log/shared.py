"""The shared log: the guest marks one byte a page in shared memory, the migration syncs it.

One byte a page, not one bit: byte stores are atomic between processes, the read-modify-write of
a bit is not.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from guestmem.dirty_log.contract import DirtyLog, Fields, GuestLog, LogKind, NoDirtyLog, Opening
from guestmem.fence import full_fence
from guestmem.ram import GuestRam
from guestmem.segment import SHM, create_segment, map_segment

SCAN_PAGES = 1 << 18
"""Marks looked at in one go: 256 KiB, which stay in cache."""


class SharedDirtyLog:
    """Both sides of the log: each process has its own mapping of the same marks."""

    def __init__(self, fd: int, pages: int) -> None:
        """Map the marks of `pages` pages. Raises ValueError when the segment is smaller."""
        self._fd = fd
        mapping = map_segment(fd, writable=True)
        if len(mapping) < pages:
            raise ValueError(f"a dirty log of {len(mapping)} bytes for {pages} pages")
        self._marks: npt.NDArray[np.uint8] = np.frombuffer(mapping, np.uint8)[:pages]

    @classmethod
    def create(cls, pages: int) -> SharedDirtyLog:
        """A clean log, its memory reserved. Raises NoDirtyLog when there is no memory for it."""
        try:
            return cls(create_segment("log", pages, reserve=True), pages)
        except OSError as error:
            raise NoDirtyLog(
                f"no room in {SHM} for a dirty log of {pages} bytes: {error.strerror}"
            ) from error

    @property
    def fields(self) -> Fields:
        return {}

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self._fd,)

    def mark(self, pages: npt.NDArray[np.intp]) -> None:
        """See `Marks.mark`. The fence keeps the pages' bytes before their marks."""
        full_fence()
        self._marks[pages] = 1

    def sync(self, into: npt.NDArray[np.uint32]) -> int:
        """See `DirtyLog.sync`.

        Only marks that were fetched are cleared, so a mark set meanwhile on another page stays.
        A mark set meanwhile on a fetched page may be lost: its write came before the clear, so
        whoever reads the page after this call sees it.
        """
        count = 0
        for start in range(0, len(self._marks), SCAN_PAGES):
            # A copy, since numpy refuses to list the non-zero items of what changes meanwhile.
            marks = self._marks[start : start + SCAN_PAGES].copy()
            dirty = np.flatnonzero(marks) + start
            self._marks[dirty] = 0
            into[count : count + len(dirty)] = dirty
            count += len(dirty)
        full_fence()
        return count

    def count(self) -> int:
        return int(np.count_nonzero(self._marks))

    def close(self) -> None:
        os.close(self._fd)


def _create(ram: GuestRam) -> GuestLog:
    return SharedDirtyLog.create(ram.pages)


def _open(opening: Opening) -> DirtyLog:
    (fd,) = opening.descriptors
    return SharedDirtyLog(fd, opening.pages)


KIND = LogKind("the guest marks", _create, _open)
