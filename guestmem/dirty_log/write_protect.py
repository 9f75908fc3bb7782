"""The Linux binding of the kernel's log: userfaultfd write-protection and the PAGEMAP_SCAN ioctl.

The guest registers its mapping once, in asynchronous write-protect mode. From then on the kernel
notes the first write to each page since the last scan, and lets it pass. Another process of the
same user fetches and clears what was noted through /proc/PID/pagemap. Numbers and layouts are from
linux/userfaultfd.h and linux/fs.h; see Documentation/admin-guide/mm/pagemap.rst.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from guestmem.all_cores import by_all_cores
from guestmem.dirty_log.contract import NoDirtyLog
from guestmem.page import PAGE_BYTES

SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282}
UFFD_USER_MODE_ONLY = 1

UFFDIO_API = 0xC018AA3F
UFFDIO_REGISTER = 0xC020AA00
UFFD_API = 0xAA
UFFD_FEATURE_WP_HUGETLBFS_SHMEM = 1 << 12
UFFD_FEATURE_WP_UNPOPULATED = 1 << 13
UFFD_FEATURE_WP_ASYNC = 1 << 15
UFFDIO_REGISTER_MODE_WP = 1 << 1

PAGEMAP_SCAN = 0xC0606610
PM_SCAN_WP_MATCHING = 1 << 0
PM_SCAN_CHECK_WPASYNC = 1 << 1
PAGE_IS_WRITTEN = 1 << 1
SCAN_ARGUMENT = struct.Struct("=12Q")
REGION_WORDS = 3
REGIONS_OF_A_CALL = 1 << 15
"""Regions fetched by one ioctl: 768 KiB of them. A region is a run of written pages."""

PART_BYTES = 4 << 30
"""A scan of a large guest is split into parts, and a thread a CPU scans them: ioctl(2) runs without the
interpreter's lock. A part takes 1 to 2 ms, a thread some tens of us to be told."""

EXPAND_PAGES = 1 << 18

T = TypeVar("T")
Part = tuple[int, int]
"""Addresses, from and up to."""

_libc = ctypes.CDLL(None, use_errno=True)


class NoKernelLog(NoDirtyLog):
    """This kernel has no asynchronous write-protection or no PAGEMAP_SCAN, or forbids it."""


def register(address: int, length: int) -> int:
    """Have the kernel note writes to `length` bytes at `address` of this process.

    Returns the userfaultfd; closing it ends the registration. Raises NoKernelLog.
    """
    number = SYS_USERFAULTFD.get(platform.machine())
    if number is None:
        raise NoKernelLog(f"the kernel's dirty log is not known on {platform.machine()}")
    fd = _libc.syscall(number, os.O_CLOEXEC | os.O_NONBLOCK | UFFD_USER_MODE_ONLY)
    if fd < 0:
        raise NoKernelLog(
            f"userfaultfd(2) is refused here ({os.strerror(ctypes.get_errno())}); "
            "UFFD_USER_MODE_ONLY exists since Linux 5.11"
        )
    features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_UNPOPULATED
    try:
        fcntl.ioctl(fd, UFFDIO_API, bytearray(struct.pack("=3Q", UFFD_API, features, 0)))
        request = struct.pack("=4Q", address, length, UFFDIO_REGISTER_MODE_WP, 0)
        fcntl.ioctl(fd, UFFDIO_REGISTER, bytearray(request))
    except OSError as error:
        os.close(fd)
        raise NoKernelLog(
            "this kernel lacks asynchronous write-protection of shared memory "
            f"(UFFD_FEATURE_WP_ASYNC, since Linux 6.7; this is {platform.release()}: {error.strerror})"
        ) from error
    return int(fd)


def check_mapping(pid: int, address: int, length: int, fd: int) -> None:
    """Raise NoKernelLog unless process `pid` maps the file behind `fd`, from its start, over these addresses.

    A pid means nothing in another PID namespace, and an address nothing in another process: what is watched
    must be the very memory that is migrated (proc(5), /proc/PID/maps).
    """
    image = os.fstat(fd)
    wanted = f"{os.major(image.st_dev):02x}:{os.minor(image.st_dev):02x}", str(image.st_ino)
    at, end = address, address + length
    try:
        with open(f"/proc/{pid}/maps") as maps:
            for line in maps:
                addresses, _, offset, device, inode, *_ = line.split()
                start, stop = (int(one, 16) for one in addresses.split("-"))
                same = (device, inode) == wanted and int(offset, 16) == start - address
                if same and start <= at < stop:
                    at = stop
    except OSError as error:
        raise NoKernelLog(f"the guest's process {pid} cannot be looked at: {error.strerror}") from error
    if at < end:
        raise NoKernelLog(
            f"process {pid}, as this side sees it, does not map the guest's RAM: is the guest in another PID "
            "namespace?"
        )


class WriteScan:
    """Scans one mapping of one process for pages written since they were last cleared."""

    def __init__(self, pid: int, address: int, length: int) -> None:
        """Open the process's page map. Raises NoKernelLog."""
        self._address = address
        end = address + length
        self._parts = [(at, min(at + PART_BYTES, end)) for at in range(address, end, PART_BYTES)]
        try:
            self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NoKernelLog(f"/proc/{pid}/pagemap cannot be read: {error.strerror}") from error

    def pages(self, into: npt.NDArray[np.uint32], *, clear: bool) -> int:
        """Write the numbers of the written pages, ascending, to the front of `into`, and clear
        them if `clear`. Returns how many there are.
        """
        if len(self._parts) == 1:
            return self._pages_of(self._parts[0], into, clear)
        count = 0
        for found in self._of_all(lambda part: self._list_of(part, clear)):
            into[count : count + len(found)] = found
            count += len(found)
        return count

    def _pages_of(self, part: Part, into: npt.NDArray[np.uint32], clear: bool) -> int:
        """The same for one part."""
        count = 0
        for regions in self._walk(part, clear):
            count += _expand(regions, self._address, into[count:])
        return count

    def _list_of(self, part: Part, clear: bool) -> npt.NDArray[np.uint32]:
        """The page numbers of one part, in a list of its own."""
        lists = []
        for regions in self._walk(part, clear):
            pages = np.empty(_pages_in(regions), np.uint32)
            _expand(regions, self._address, pages)
            lists.append(pages)
        return np.concatenate(lists)

    def clear(self) -> None:
        """Clear all pages without listing them. Raises NoKernelLog."""
        self._of_all(self._clear_part)

    def _clear_part(self, part: Part) -> None:
        for _ in self._walk(part, clear=True):
            pass

    def count(self) -> int:
        """The number of written pages; clears nothing."""
        return sum(self._of_all(self._count_part))

    def _count_part(self, part: Part) -> int:
        return sum(_pages_in(regions) for regions in self._walk(part, clear=False))

    def _of_all(self, scan: Callable[[Part], T]) -> list[T]:
        """What a scan of each part gives, in order. Its threads end with it: their process forks others."""
        if len(self._parts) == 1:
            return [scan(self._parts[0])]
        return list(by_all_cores(scan, self._parts))

    def _walk(self, part: Part, clear: bool) -> Iterator[npt.NDArray[np.uint64]]:
        """The regions of one part, a call's at a time."""
        at, end = part
        while at < end:
            regions, at = self._scan(at, end, clear)
            yield regions

    def _scan(self, start: int, end: int, clear: bool) -> tuple[npt.NDArray[np.uint64], int]:
        buffer: npt.NDArray[np.uint64] = np.empty((REGIONS_OF_A_CALL, REGION_WORDS), np.uint64)
        flags = PM_SCAN_CHECK_WPASYNC | (PM_SCAN_WP_MATCHING if clear else 0)
        argument = bytearray(
            SCAN_ARGUMENT.pack(
                SCAN_ARGUMENT.size,
                flags,
                start,
                end,
                0,
                buffer.ctypes.data,
                REGIONS_OF_A_CALL,
                0,
                0,
                PAGE_IS_WRITTEN,
                0,
                PAGE_IS_WRITTEN,
            )
        )
        try:
            found = fcntl.ioctl(self._pagemap, PAGEMAP_SCAN, argument)
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EINVAL, errno.EPERM):
                raise NoKernelLog(
                    "this kernel lacks the PAGEMAP_SCAN ioctl, which exists since Linux 6.7 "
                    f"(this is {platform.release()}: {error.strerror})"
                ) from error
            raise
        regions = buffer[:found]
        walked = int(SCAN_ARGUMENT.unpack(argument)[4])
        # A scan that clears nothing can report a smaller end than that of the last region it found
        # (seen on Linux 6.18). Going on from there would count pages twice.
        return regions, max(walked, int(regions[-1, 1])) if found else walked

    def close(self) -> None:
        os.close(self._pagemap)


def _pages_in(regions: npt.NDArray[np.uint64]) -> int:
    return int((regions[:, 1] - regions[:, 0]).sum()) // PAGE_BYTES


def _expand(regions: npt.NDArray[np.uint64], address: int, into: npt.NDArray[np.uint32]) -> int:
    """Page numbers of address ranges, written to the front of `into`; EXPAND_PAGES at a time, so that a guest
    of which all is dirty takes no more memory than its list."""
    firsts = ((regions[:, 0] - np.uint64(address)) // np.uint64(PAGE_BYTES)).astype(np.int64)
    lengths = ((regions[:, 1] - regions[:, 0]) // np.uint64(PAGE_BYTES)).astype(np.int64)
    ends = np.cumsum(lengths)
    done = start = 0
    while start < len(lengths):
        stop = max(start + 1, int(np.searchsorted(ends, done + EXPAND_PAGES, "right")))
        first, length = firsts[start:stop], lengths[start:stop]
        if stop == start + 1:
            for at in range(0, int(length[0]), EXPAND_PAGES):
                until = min(at + EXPAND_PAGES, int(length[0]))
                into[done + at : done + until] = np.arange(first[0] + at, first[0] + until, dtype=np.uint32)
        else:
            total = int(length.sum())
            before = np.cumsum(length) - length
            into[done : done + total] = np.arange(total) + np.repeat(first - before, length)
        done, start = int(ends[stop - 1]), stop
    return done
