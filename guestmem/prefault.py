"""Give a mapping its pages before the clock starts.

The first touch of a page of shared memory costs 10 to 30 times as much as copying it. A receiver
that touches its pages for the first time while the clock runs measures the kernel, not the codec.
Page tables are per process: every worker populates the mappings that it will touch.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable

from guestmem.aligned import AlignedMapping, address_of
from guestmem.all_cores import by_all_cores
from guestmem.page import PAGE_BYTES
from guestmem.segment import HUGE_BYTES, SHM

# From linux/mman.h, since Linux 5.14; the mmap module does not name them.
MADV_POPULATE_READ = 22
MADV_POPULATE_WRITE = 23
MADV_COLLAPSE = 25
"""Since Linux 6.1."""

NOT_KNOWN = (errno.EINVAL, errno.EPERM, errno.ENOSYS)
"""What an older kernel says to these, or a sandbox (seccomp) to madvise(2)."""

CHUNK_BYTES = 64 << 20

_libc = ctypes.CDLL(None, use_errno=True)


Mapping = mmap.mmap | AlignedMapping


class NoMemoryBehind(Exception):
    """The pages of a mapping could not be allocated: shared memory, or all memory, is full."""


def warm_heap(size_bytes: int) -> None:
    """Touch `size_bytes` of this process's heap and free them again, before the clock starts.

    Workers keep freed heap, so what a codec allocates later lies in pages that are there already.
    """
    touched = b"\1" * size_bytes
    del touched


def populate(
    mapping: Mapping,
    *,
    write: bool,
    huge: bool = False,
    first_share: float = 0.0,
    on_share: Callable[[float], None] | None = None,
) -> None:
    """Populate every page of `mapping` in this process's page tables.

    `first_share` (0 to 1) is where in the mapping to begin; the walk wraps around. Workers that
    populate the same mapping side by side begin at different places, so that each allocates a part
    and finds the parts of the others already there. `on_share` is told after each chunk what share
    of the mapping (0 to 1) is populated. `huge` puts its pages together to huge ones first, where the kernel
    does; every later mapping of the same memory then has its page tables at once.

    Raises NoMemoryBehind when the kernel cannot provide a page.
    """
    size = len(mapping)
    start = int(size * first_share) // HUGE_BYTES * HUGE_BYTES
    done = 0
    for begin, end in ((start, size), (0, start)):
        for offset in range(begin, end, CHUNK_BYTES):
            length = min(CHUNK_BYTES, end - offset)
            huge = huge and _collapse_chunk(mapping, offset, length)
            _populate_chunk(mapping, offset, length, write)
            done += length
            if on_share is not None:
                on_share(done / size)


def populate_by_all_cores(mapping: Mapping, *, huge: bool, on_share: Callable[[float], None]) -> None:
    """Populate every page, to write, in threads of this process. Raises what `populate` does, and what
    `on_share` raises."""
    size = len(mapping)
    offsets = range(0, size, CHUNK_BYTES)

    def one(offset: int) -> None:
        length = min(CHUNK_BYTES, size - offset)
        if huge:
            _collapse_chunk(mapping, offset, length)
        _populate_chunk(mapping, offset, length, write=True)

    for done, _ in enumerate(by_all_cores(one, offsets), 1):
        on_share(done / len(offsets))


def advise(mapping: Mapping, advice: int, offset: int, length: int) -> None:
    """madvise(2) without the interpreter's lock, which mmap.madvise holds. Raises OSError."""
    if _libc.madvise(ctypes.c_void_p(address_of(mapping) + offset), ctypes.c_size_t(length), advice):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def huge_bytes_of(mapping: Mapping) -> int:
    """How much of a mapping this process has mapped in huge pages (proc(5), /proc/PID/smaps)."""
    begin = f"{address_of(mapping):x}-"
    with open("/proc/self/smaps") as smaps:
        for line in smaps:
            if line.startswith(begin):
                break
        for line in smaps:
            if line.startswith("ShmemPmdMapped:"):
                return int(line.split()[1]) << 10
    return 0


def _collapse_chunk(mapping: Mapping, offset: int, length: int) -> bool:
    """Make huge pages of what lies there; whether to go on trying. Where it fails nothing is lost."""
    length -= length % HUGE_BYTES
    try:
        for page in range(offset, offset + length, HUGE_BYTES):
            # A range of which nothing is there yet is refused (EINVAL).
            advise(mapping, MADV_POPULATE_WRITE, page, PAGE_BYTES)
        if length:
            advise(mapping, MADV_COLLAPSE, offset, length)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EBUSY, errno.ENOMEM)
    return True


def _populate_chunk(mapping: Mapping, offset: int, length: int, write: bool) -> None:
    advice = MADV_POPULATE_WRITE if write else MADV_POPULATE_READ
    while True:
        try:
            advise(mapping, advice, offset, length)
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


def _touch(mapping: Mapping, offset: int, length: int, write: bool) -> None:
    """What madvise does, where it does not know or may not: touch one byte a page.

    It writes back what it read, which is safe because nobody writes before the clock starts.
    """
    memory = mapping.memory if isinstance(mapping, AlignedMapping) else memoryview(mapping)
    for page in range(offset, offset + length, PAGE_BYTES):
        byte = memory[page]
        if write:
            memory[page] = byte
