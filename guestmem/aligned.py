"""Mappings at addresses that huge pages can be mapped at."""

from __future__ import annotations

import ctypes
import mmap
import os

import numpy as np

from guestmem.segment import HUGE_BYTES

MAP_SHARED_FIXED = mmap.MAP_SHARED | 0x10
"""MAP_FIXED of linux/mman.h, which the mmap module does not name."""

NOTHING_YET = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000
"""With MAP_NORESERVE of linux/mman.h: no memory is set aside for it (overcommit-accounting)."""

MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
)


class AlignedMapping:
    """A whole segment, shared, from a multiple of HUGE_BYTES on. `memory` is its bytes.

    Python's mmap takes no address. So it maps that much and 2 MiB more of nothing, and the segment takes its
    place at the right address within; all of it is unmapped when nobody uses `memory` any more.
    """

    def __init__(self, fd: int, *, writable: bool) -> None:
        """Map what fstat says is there. Raises OSError."""
        size = os.fstat(fd).st_size
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        whole = mmap.mmap(-1, size + HUGE_BYTES, NOTHING_YET, protection)
        base = address_of(whole)
        start = -base % HUGE_BYTES
        self.address = base + start
        self.memory = memoryview(whole)[start : start + size]
        if _libc.mmap(self.address, size, protection, MAP_SHARED_FIXED, fd, 0) == MAP_FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def __len__(self) -> int:
        return len(self.memory)


def address_of(mapping: mmap.mmap | AlignedMapping) -> int:
    """Where a mapping begins in this process."""
    if isinstance(mapping, AlignedMapping):
        return mapping.address
    return int(np.frombuffer(mapping, np.uint8).ctypes.data)
