"""The dirty log: which pages were written since the last sync. Two logs, one contract.

*Shared*: the guest marks, one byte a page in shared memory. *Kernel*: the guest marks nothing and
writes with plain stores, as a real guest does; Linux notes its writes (`guestmem.dirty_log.write_protect`).

The contract (QEMU's): the guest marks a page *after* writing it; `sync` clears a mark *before*
anybody reads the page. A write is then either in the bytes that are read, or marked again for
the next sync, or both; never neither. One byte a page, not one bit: byte stores are atomic
between processes, a read-modify-write of a bit is not.
"""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np
import numpy.typing as npt

from guestmem.dirty_log.write_protect import WriteScan
from guestmem.segment import create_segment, map_segment

SCAN_PAGES = 1 << 18
"""Marks looked at in one go: 256 KiB, which stay in cache."""

_fence = threading.Lock()


def full_fence() -> None:
    """Order this process's stores before its later loads and stores, as other processes see it.

    CPython's lock is a POSIX semaphore or an atomic compare-and-swap: a locked instruction on
    x86-64, which is where the order of a clear before a read would otherwise not be kept.
    """
    with _fence:
        pass


class DirtyLog(Protocol):
    """The migration's side of a log."""

    def sync(self, into: npt.NDArray[np.uint32]) -> int:
        """Fetch and clear: the pages written since the last sync, ascending, to the front of
        `into`, which has room for every page; returns how many there are.
        """

    def count(self) -> int:
        """Pages that a sync would fetch now; clears nothing."""


class KernelDirtyLog:
    """The kernel's notes on the guest's own mapping of its RAM.

    A scan write-protects what it fetches, and flushes the guest's address translations before it
    returns: a store that comes later faults and is noted.
    """

    def __init__(self, pid: int, address: int, length: int) -> None:
        """For the mapping at `address` of process `pid`; begins clean. Raises NoKernelLog.

        Protecting every page for the first time takes two to three times a later scan (25 ms a
        GiB), so it is done here, before any clock.
        """
        self._scan = WriteScan(pid, address, length)
        self._scan.clear()

    def sync(self, into: npt.NDArray[np.uint32]) -> int:
        """Fetch and clear; see DirtyLog."""
        count = self._scan.pages(into, clear=True)
        full_fence()
        return count

    def count(self) -> int:
        """Pages noted now; see DirtyLog."""
        return self._scan.count()


class Unmarked:
    """What a guest marks that the kernel watches: nothing."""

    def mark(self, pages: npt.NDArray[np.intp]) -> None:
        """Nothing."""


class SharedDirtyLog:
    """One byte a page in shared memory: the guest marks, the migration syncs."""

    def __init__(self, fd: int, pages: int) -> None:
        """Map a log of `pages` bytes. Raises ValueError when the segment has another size."""
        self.fd = fd
        self._mapping = map_segment(fd, writable=True)
        if len(self._mapping) < pages:
            raise ValueError(f"a dirty log of {len(self._mapping)} bytes for {pages} pages")
        self._marks: npt.NDArray[np.uint8] = np.frombuffer(self._mapping, np.uint8)[:pages]

    @classmethod
    def create(cls, pages: int) -> SharedDirtyLog:
        """A clean log, its memory reserved. Raises OSError when there is none."""
        return cls(create_segment("log", pages, reserve=True), pages)

    def mark(self, pages: npt.NDArray[np.intp]) -> None:
        """Mark pages as dirty. Called by the guest, after the pages are written."""
        full_fence()
        self._marks[pages] = 1

    def sync(self, into: npt.NDArray[np.uint32]) -> int:
        """Fetch and clear; see DirtyLog.

        Only marks that were fetched are cleared, so one set meanwhile on another page stays.
        One set meanwhile on a fetched page may be lost: its write came before the clear, so
        whoever reads the page after this call sees it.
        """
        count = 0
        for start in range(0, len(self._marks), SCAN_PAGES):
            # A copy: numpy refuses to list what changes while it looks.
            marks = self._marks[start : start + SCAN_PAGES].copy()
            dirty = np.flatnonzero(marks) + start
            self._marks[dirty] = 0
            into[count : count + len(dirty)] = dirty
            count += len(dirty)
        full_fence()
        return count

    def count(self) -> int:
        """Pages marked now; see DirtyLog."""
        return int(np.count_nonzero(self._marks))
