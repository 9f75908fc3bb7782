"""Give a mapping its pages before the clock starts.

The first touch of a page of shared memory costs 10 to 30 times as much as copying it. A receiver
that touches its pages for the first time while the clock runs measures the kernel, not the codec.
Page tables are per process: every worker populates the mappings that it will touch.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable

from guestmem.page import PAGE_BYTES
from guestmem.segment import SHM

# From linux/mman.h, since Linux 5.14; the mmap module does not name them.
MADV_POPULATE_READ = 22
MADV_POPULATE_WRITE = 23

NOT_KNOWN = (errno.EINVAL, errno.EPERM, errno.ENOSYS)
"""What an older kernel says to these, or a sandbox (seccomp) to madvise(2)."""

CHUNK_BYTES = 64 << 20


class NoMemoryBehind(Exception):
    """The pages of a mapping could not be allocated: shared memory, or all memory, is full."""


def warm_heap(size_bytes: int) -> None:
    """Touch `size_bytes` of this process's heap and free them again, before the clock starts.

    Workers keep freed heap, so what a codec allocates later lies in pages that are there already.
    """
    touched = b"\1" * size_bytes
    del touched


def populate(
    mapping: mmap.mmap,
    *,
    write: bool,
    first_share: float = 0.0,
    on_share: Callable[[float], None] | None = None,
) -> None:
    """Populate every page of `mapping` in this process's page tables.

    `first_share` (0 to 1) is where in the mapping to begin; the walk wraps around. Workers that
    populate the same mapping side by side begin at different places, so that each allocates a part
    and finds the parts of the others already there. `on_share` is told after each chunk what share
    of the mapping (0 to 1) is populated.

    Raises NoMemoryBehind when the kernel cannot provide a page.
    """
    size = len(mapping)
    start = int(size * first_share) // PAGE_BYTES * PAGE_BYTES
    done = 0
    for begin, end in ((start, size), (0, start)):
        for offset in range(begin, end, CHUNK_BYTES):
            length = min(CHUNK_BYTES, end - offset)
            _populate_chunk(mapping, offset, length, write)
            done += length
            if on_share is not None:
                on_share(done / size)


def _populate_chunk(mapping: mmap.mmap, offset: int, length: int, write: bool) -> None:
    advice = MADV_POPULATE_WRITE if write else MADV_POPULATE_READ
    while True:
        try:
            mapping.madvise(advice, offset, length)
            return
        except OSError as error:
            if error.errno in (errno.EINTR, errno.EAGAIN):
                continue
            if error.errno in NOT_KNOWN:
                _touch(mapping, offset, length, write)
                return
            raise NoMemoryBehind(
                f"no memory for {length >> 20} MiB of a shared mapping ({error.strerror}): "
                f"{SHM} or the memory of this host or cgroup is full"
            ) from error


def _touch(mapping: mmap.mmap, offset: int, length: int, write: bool) -> None:
    """What madvise does, where it does not know or may not: touch one byte a page.

    It writes back what it read, which is safe because nobody writes before the clock starts.
    """
    for page in range(offset, offset + length, PAGE_BYTES):
        byte = mapping[page]
        if write:
            mapping[page] = byte
