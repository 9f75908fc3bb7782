"""The kernel's log: the guest marks nothing and writes with plain stores, as a real guest does.

Linux notes the writes to the guest's own mapping of its RAM (`guestmem.dirty_log.write_protect`).
A scan write-protects what it fetches, and flushes the guest's address translations before it
returns; a later store faults and is noted again.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from guestmem.dirty_log.contract import DirtyLog, Fields, GuestLog, LogKind, Opening, Unwatched
from guestmem.dirty_log.write_protect import WriteScan, check_mapping, register
from guestmem.fence import full_fence
from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam


class KernelGuestLog(Unwatched):
    """The guest's side: its mapping, registered with the kernel until it is closed."""

    def __init__(self, ram: GuestRam) -> None:
        """Raises NoKernelLog."""
        self._address = int(ram.words.ctypes.data)
        self._fd = register(self._address, ram.size_bytes)

    @property
    def fields(self) -> Fields:
        return {"address": self._address}

    @property
    def descriptors(self) -> tuple[int, ...]:
        return ()

    def close(self) -> None:
        """Close the userfaultfd; the kernel forgets the registration with it."""
        os.close(self._fd)


class KernelDirtyLog:
    """The migration's side: scans of the guest's mapping through its page map."""

    def __init__(self, pid: int, address: int, length: int) -> None:
        """For the `length` bytes mapped at `address` of process `pid`; begins clean.

        Raises NoKernelLog. Protecting every page for the first time takes two to three times as
        long as a later scan (25 ms a GiB), so it is done here, before any clock starts.
        """
        self._scan = WriteScan(pid, address, length)
        try:
            self._scan.clear()
        except BaseException:
            self._scan.close()
            raise

    def sync(self, into: npt.NDArray[np.uint32]) -> int:
        """See `DirtyLog.sync`. The scan clears exactly what it reports."""
        count = self._scan.pages(into, clear=True)
        full_fence()
        return count

    def count(self) -> int:
        return self._scan.count()


def _create(ram: GuestRam) -> GuestLog:
    return KernelGuestLog(ram)


def _open(opening: Opening) -> DirtyLog:
    if opening.descriptors:
        raise ValueError("the kernel's dirty log comes without descriptors")
    address, length = int(opening.fields["address"]), opening.pages * PAGE_BYTES
    check_mapping(opening.pid, address, length, opening.ram_fd)
    return KernelDirtyLog(opening.pid, address, length)


KIND = LogKind("Linux notes the writes, since 6.7", _create, _open)
