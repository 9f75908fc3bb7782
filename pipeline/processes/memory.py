"""Is there memory for this run? Found out before anything is allocated."""

from __future__ import annotations

import os
from pathlib import Path

from guestmem.page import PAGE_BYTES
from guestmem.segment import SHM
from guestmem.units import show_size
from pipeline.errors import HostError

WORKER_BYTES = 24 << 20
"""Private memory of a worker, rounded up: 10 to 16 MiB were measured."""

PAGE_TABLE_SHARE = 8 / PAGE_BYTES
"""Page tables: eight bytes a page, in every process that maps an image."""

PAGE_BOOK_BYTES = 6
"""Beside the images, a page costs its dirty mark, its written flag and its place in the list."""


def check_memory(size_bytes: int, images: int, queue_bytes: int, workers: int) -> None:
    """Raise HostError when `images` of `size_bytes` and what goes with them do not fit."""
    pages = size_bytes // PAGE_BYTES
    shared = images * size_bytes + queue_bytes + PAGE_BOOK_BYTES * pages
    private = workers * (WORKER_BYTES + int(size_bytes * PAGE_TABLE_SHARE))
    free = shm_free_bytes()
    if shared > free:
        raise HostError(
            f"not enough shared memory: the run needs {show_size(shared)} in {SHM}, which has "
            f"{show_size(free)} left; choose a smaller --size, or mount -o remount,size=... {SHM}"
        )
    available = available_bytes()
    if shared + private > available:
        raise HostError(
            f"not enough memory: the run needs {show_size(shared + private)}, this host or cgroup "
            f"has {show_size(available)} available; choose a smaller --size or fewer workers"
        )


def shm_free_bytes() -> int:
    """Bytes that may still be allocated in shared memory."""
    try:
        status = os.statvfs(SHM)
    except OSError as error:
        raise HostError(f"{SHM} cannot be used ({error.strerror}): mount a tmpfs there") from error
    return status.f_bavail * status.f_frsize


def available_bytes() -> int:
    """What the kernel says may be allocated without swapping, within this cgroup's limit."""
    available = memory_figure("MemAvailable")
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        try:
            available = min(available, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):
            continue
    return available


def memory_figure(name: str) -> int:
    """A line of /proc/meminfo, in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0
