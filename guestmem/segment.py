"""POSIX shared memory that no process can leave behind.

A segment is created under a random name and unlinked before anything else happens to it. From
then on it lives as long as a process holds its descriptor or a mapping of it, so even `kill -9` of
all processes frees it. Workers inherit the descriptor over `fork`; other processes receive it over
a Unix socket (`guestmem.ipc`).
"""

from __future__ import annotations

import errno
import mmap
import os
import secrets
from pathlib import Path

import posix_ipc

from guestmem.names import guarded_name

HUGE_BYTES = 2 << 20
"""A huge page, where pages have 4 KiB."""

SHM = Path("/dev/shm")
"""Where Linux keeps POSIX shared memory (shm_overview(7)): a tmpfs, which can be full."""


def create_segment(label: str, size_bytes: int, *, reserve: bool = False) -> int:
    """Create an unlinked segment of `size_bytes` zero bytes and return its descriptor.

    `reserve` allocates the memory at once, so that a full /dev/shm is an error here rather than a
    SIGBUS in whoever touches the segment first. Guest RAM is not reserved: `--prealloc` decides
    when its pages are allocated.

    Raises OSError, of SHM where it takes no segment: ENOSPC among others.
    """
    name = f"/ramferry-{os.getpid()}-{label}-{secrets.token_hex(4)}"
    with guarded_name(name):
        memory = _new_memory(name)
        memory.unlink()
    try:
        os.ftruncate(memory.fd, size_bytes)
        if reserve:
            os.posix_fallocate(memory.fd, 0, size_bytes)
    except OSError:
        os.close(memory.fd)
        raise
    return int(memory.fd)


def _new_memory(name: str) -> posix_ipc.SharedMemory:
    """posix_ipc tells of a refusal without its number."""
    try:
        return posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600)
    except posix_ipc.PermissionsError as error:
        raise PermissionError(errno.EACCES, "Permission denied", str(SHM)) from error
    except OSError as error:
        if error.errno in (None, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        raise OSError(error.errno, error.strerror, str(SHM)) from error


def mapped_segment(label: str, size_bytes: int) -> mmap.mmap:
    """A new segment with its memory, mapped in this process and its later children; nobody else gets it.
    Raises OSError."""
    fd = create_segment(label, size_bytes, reserve=True)
    try:
        return map_segment(fd, writable=True)
    finally:
        os.close(fd)


def map_segment(fd: int, *, writable: bool) -> mmap.mmap:
    """Map a whole segment, shared; its size is what fstat says. Raises OSError."""
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    return mmap.mmap(fd, os.fstat(fd).st_size, flags=mmap.MAP_SHARED, prot=protection)
