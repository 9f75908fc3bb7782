"""Is there memory for this run? Found out before anything is allocated."""

from __future__ import annotations

import os
from pathlib import Path

from guestmem.page import PAGE_BYTES
from guestmem.segment import HUGE_BYTES, SHM, create_segment
from guestmem.units import show_size
from pipeline.errors import HostError, one_line
from pipeline.processes.cgroup import memory_left_bytes
from pipeline.processes.limits import limit_of

WORKER_BYTES, WORKER_PACKETS = 14 << 20, 9
"""Private memory of a worker: its interpreter, and so many packets of buffers, scratch and codec. With
packets of 4 MiB 36 to 48 MiB were measured (2026, all methods, both transports)."""

STRONG_PACKETS = 17
"""What zstd needs besides from level STRONG_ZSTD_LEVEL on: 103 MiB were measured with packets of 4 MiB."""

STRONG_ZSTD_LEVEL = 13

PAGE_TABLE_SHARE = 8 / PAGE_BYTES
"""Page tables: eight bytes a page, in every process that maps an image."""

MAPPING_BESIDE_WORKERS = 2
"""The guest and the coordinator map images too."""

PAGE_BOOK_BYTES = 6
"""Beside the images, a page costs its dirty mark, its written flag and its place in the list."""


def worker_bytes(packet_bytes: int, *, strong: bool = False) -> int:
    """Private memory of a worker that takes packets of so many plain bytes; `strong` compresses by zstd from
    STRONG_ZSTD_LEVEL on."""
    return WORKER_BYTES + (WORKER_PACKETS + strong * STRONG_PACKETS) * packet_bytes


def check_memory(
    size_bytes: int,
    images: int,
    queue_bytes: int,
    workers: int,
    advice: str = "choose a smaller --size",
    *,
    private_bytes: int = WORKER_BYTES,
) -> None:
    """Raise HostError when `images` of `size_bytes` and what goes with them do not fit: the queue, the
    books, the private memory of workers, and page tables of every process that maps an image.

    `advice` says what a user can do about it, beside fewer workers.
    """
    pages = size_bytes // PAGE_BYTES
    shared = images * size_bytes + queue_bytes + PAGE_BOOK_BYTES * pages
    mapping = workers + MAPPING_BESIDE_WORKERS
    private = private_bytes + mapping * int(size_bytes * PAGE_TABLE_SHARE)
    free = shm_free_bytes()
    if shared > free:
        raise HostError(
            f"not enough shared memory: the run needs {show_size(shared)} in {SHM}, which has "
            f"{show_size(free)} left; {advice}, or mount -o remount,size=... {SHM}"
        )
    available = available_bytes()
    if shared + private > available:
        raise HostError(
            f"not enough memory: the run needs {show_size(shared + private)}, this host or its control group "
            f"(MemoryMax=, a container's limit) has {show_size(available)} left; {advice}, or fewer workers"
        )


def shm_free_bytes() -> int:
    """Bytes that may still be allocated in shared memory."""
    try:
        status = os.statvfs(SHM)
    except OSError as error:
        raise HostError(f"{SHM} cannot be used ({error.strerror}): mount a tmpfs there") from error
    return status.f_bavail * status.f_frsize


def available_bytes() -> int:
    """What may be allocated without swapping: of this host, and of this process's control groups."""
    available = memory_figure("MemAvailable")
    left = memory_left_bytes()
    return available if left is None else min(available, left)


def killed_for_memory_before() -> int:
    """How many processes the kernel has killed on this host for want of memory (proc(5), vmstat oom_kill)."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def check_huge_pages(wanted: str, huge_bytes: int, size_bytes: int) -> None:
    """Raises HostError where an image must lie in huge pages (`on`) and does not."""
    if wanted == "on" and huge_bytes < size_bytes - size_bytes % HUGE_BYTES:
        raise HostError(
            f"--huge-pages on: {show_size(huge_bytes)} of {show_size(size_bytes)} lie in huge pages; "
            "MADV_COLLAPSE needs Linux 6.1, free memory in one piece (/proc/buddyinfo), and not `deny` in "
            "/sys/kernel/mm/transparent_hugepage/shmem_enabled; leave the option out"
        )


def check_shared_memory() -> None:
    """Raises HostError where this process can make no shared memory, or cannot see how much is left."""
    memory_figure("MemAvailable")
    try:
        os.close(create_segment("probe", PAGE_BYTES))
    except OSError as error:
        raise limit_of(error) or HostError(f"no shared memory can be made: {one_line(error)}") from error


def memory_figure(name: str) -> int:
    """A line of /proc/meminfo, in bytes. Raises HostError without /proc."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError as error:
        raise HostError("/proc is not mounted here: mount -t proc proc /proc") from error
    for line in lines:
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0
