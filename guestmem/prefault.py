"""Give a mapping its pages before the clock starts.

First touch of shared memory costs 10 to 30 times the copy that touched it, so a receiver that
meets its pages for the first time inside the clock measures the kernel, not the codec. Page
tables are per process: every worker populates the mappings that it will touch itself.
"""

from __future__ import annotations

import errno
import mmap

from guestmem.segment import PAGE_BYTES

# linux/mman.h, since Linux 5.14; the mmap module has no names for them.
MADV_POPULATE_READ = 22
MADV_POPULATE_WRITE = 23

CHUNK_BYTES = 64 << 20


class NoMemoryBehind(Exception):
    """The pages of a mapping could not be allocated: /dev/shm or the memory is full."""


def warm_heap(size_bytes: int) -> None:
    """Touch so much of this process's heap and free it again, before the clock: what a codec
    allocates later then lies in pages that are there (workers keep freed heap)."""
    touched = b"\1" * size_bytes
    del touched


def populate(mapping: mmap.mmap, *, write: bool, first_share: float = 0.0) -> None:
    """Populate every page of `mapping` in this process's page tables.

    `first_share` (0 to 1) is where in the mapping to begin; the walk wraps round. Workers that
    populate the same mapping side by side begin at different places, so each allocates a part
    and finds the others' parts already there.

    Raises NoMemoryBehind where the kernel cannot give a page.
    """
    size = len(mapping)
    start = int(size * first_share) // PAGE_BYTES * PAGE_BYTES
    for begin, end in ((start, size), (0, start)):
        for offset in range(begin, end, CHUNK_BYTES):
            _populate_chunk(mapping, offset, min(CHUNK_BYTES, end - offset), write)


def _populate_chunk(mapping: mmap.mmap, offset: int, length: int, write: bool) -> None:
    advice = MADV_POPULATE_WRITE if write else MADV_POPULATE_READ
    while True:
        try:
            mapping.madvise(advice, offset, length)
            return
        except OSError as error:
            if error.errno in (errno.EINTR, errno.EAGAIN):
                continue
            if error.errno == errno.EINVAL:
                _touch(mapping, offset, length, write)
                return
            raise NoMemoryBehind(
                f"no memory for {length >> 20} MiB of a shared mapping ({error.strerror}): "
                "/dev/shm or the memory of this host or cgroup is full"
            ) from error


def _touch(mapping: mmap.mmap, offset: int, length: int, write: bool) -> None:
    """The same before Linux 5.14: one byte a page. Nobody else writes before the clock."""
    for page in range(offset, offset + length, PAGE_BYTES):
        byte = mapping[page]
        if write:
            mapping[page] = byte
