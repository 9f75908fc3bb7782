"""Mappings at addresses that huge pages can be mapped at."""

from __future__ import annotations

import mmap

import numpy as np

from guestmem.segment import HUGE_BYTES, map_segment

ALIGN_TRIES = 4


def map_aligned(fd: int, *, writable: bool) -> mmap.mmap:
    """The same, at an address that huge pages can be mapped at, wherever that can be had. Raises OSError.

    The kernel puts a mapping right below the lowest one (mmap(2)), and Python's mmap takes no address. So
    where it comes to lie wrong, something is put in its way that is as long as it is off.
    """
    mapping = map_segment(fd, writable=writable)
    for _ in range(ALIGN_TRIES):
        off = address_of(mapping) % HUGE_BYTES
        if off == 0 or len(mapping) < HUGE_BYTES:
            break
        del mapping
        in_the_way = mmap.mmap(-1, off, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
        mapping = map_segment(fd, writable=writable)
        del in_the_way
    return mapping


def address_of(mapping: mmap.mmap) -> int:
    """Where a mapping begins in this process."""
    return int(np.frombuffer(mapping, np.uint8).ctypes.data)
