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

import numpy as np
import numpy.typing as npt

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
        self._length = length
        self._regions: npt.NDArray[np.uint64] = np.zeros((REGIONS_OF_A_CALL, REGION_WORDS), np.uint64)
        try:
            self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NoKernelLog(f"/proc/{pid}/pagemap cannot be read: {error.strerror}") from error

    def pages(self, into: npt.NDArray[np.uint32], *, clear: bool) -> int:
        """Write the numbers of the written pages, ascending, to the front of `into`, and clear
        them if `clear`. Returns how many there are.
        """
        count = 0
        at, end = self._address, self._address + self._length
        while at < end:
            regions, at = self._scan(at, end, clear)
            count += _expand(regions, self._address, into[count:])
        return count

    def clear(self) -> None:
        """Clear all pages without listing them. Raises NoKernelLog."""
        at, end = self._address, self._address + self._length
        while at < end:
            _, at = self._scan(at, end, clear=True)

    def count(self) -> int:
        """The number of written pages; clears nothing."""
        count = 0
        at, end = self._address, self._address + self._length
        while at < end:
            regions, at = self._scan(at, end, clear=False)
            count += int((regions[:, 1] - regions[:, 0]).sum()) // PAGE_BYTES
        return count

    def _scan(self, start: int, end: int, clear: bool) -> tuple[npt.NDArray[np.uint64], int]:
        flags = PM_SCAN_CHECK_WPASYNC | (PM_SCAN_WP_MATCHING if clear else 0)
        argument = bytearray(
            SCAN_ARGUMENT.pack(
                SCAN_ARGUMENT.size,
                flags,
                start,
                end,
                0,
                self._regions.ctypes.data,
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
        regions = self._regions[:found]
        walked = int(SCAN_ARGUMENT.unpack(argument)[4])
        # A scan that clears nothing can report a smaller end than that of the last region it found
        # (seen on Linux 6.18). Going on from there would count pages twice.
        return regions, max(walked, int(regions[-1, 1])) if found else walked

    def close(self) -> None:
        os.close(self._pagemap)


def _expand(regions: npt.NDArray[np.uint64], address: int, into: npt.NDArray[np.uint32]) -> int:
    """Page numbers of address ranges, written to the front of `into`."""
    first = (regions[:, 0] - np.uint64(address)) // np.uint64(PAGE_BYTES)
    lengths = ((regions[:, 1] - regions[:, 0]) // np.uint64(PAGE_BYTES)).astype(np.int64)
    total = int(lengths.sum())
    if not total:
        return 0
    before = np.cumsum(lengths) - lengths
    into[:total] = np.arange(total) + np.repeat(first.astype(np.int64) - before, lengths)
    return total
