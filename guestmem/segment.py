"""POSIX shared memory that nothing can leave behind.

A segment is created under a random name and unlinked before anything else happens to it; from
then on it lives as long as somebody holds its descriptor or a mapping of it, so even `kill -9`
of every process frees it. Workers get it by inheriting the descriptor over `fork`, other
processes by receiving it over a Unix socket (`guestmem.ipc`).
"""

from __future__ import annotations

import mmap
import os
import secrets

import posix_ipc

from guestmem.names import SEGMENT, guarded_name

PAGE_BYTES = 4096
"""Bytes of a guest page: QEMU's target page size on x86."""


def create_segment(label: str, size_bytes: int, *, reserve: bool = False) -> int:
    """Create an unlinked segment of `size_bytes` zero bytes; return its descriptor.

    `reserve` allocates the memory at once, so that a full /dev/shm is an error here and not a
    SIGBUS in whoever touches the segment first. Guest RAM is not reserved: when its pages
    appear is what `--prealloc` decides.

    Raises OSError (ENOSPC and others).
    """
    name = f"/ramferry-{os.getpid()}-{label}-{secrets.token_hex(4)}"
    with guarded_name(SEGMENT, name):
        memory = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600)
        memory.unlink()
    try:
        os.ftruncate(memory.fd, size_bytes)
        if reserve:
            os.posix_fallocate(memory.fd, 0, size_bytes)
    except OSError:
        os.close(memory.fd)
        raise
    return int(memory.fd)


def map_segment(fd: int, *, writable: bool) -> mmap.mmap:
    """Map the whole of a segment, shared. The size comes from the segment itself (fstat)."""
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    return mmap.mmap(fd, os.fstat(fd).st_size, flags=mmap.MAP_SHARED, prot=protection)
