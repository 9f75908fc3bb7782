"""Which limit of this host an error of the system means, and what a user can do about it."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable

from pipeline.errors import HostError
from pipeline.processes.cgroup import pids_left

FEW_FILES_LEFT = 8
"""So near to RLIMIT_NOFILE, EMFILE means that limit; for mq_open(3) it may mean RLIMIT_MSGQUEUE."""


def limit_of(error: BaseException) -> HostError | None:
    """The limit that an OSError means, as an error for the user; None where it means none."""
    if not isinstance(error, OSError):
        return None
    if error.errno is None and files_are_out():  # posix_ipc gives words without a number
        return HostError(_files())
    say = _SAID.get(error.errno or 0)
    return None if say is None else HostError(say())


def files_are_out() -> bool:
    """Whether this process has about as many descriptors as it may have."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most == resource.RLIM_INFINITY:
        return False
    try:
        return len(os.listdir("/proc/self/fd")) + FEW_FILES_LEFT >= most
    except OSError:
        return True  # not even a folder can be opened


def message_queues_are_out() -> HostError:
    """Which limit keeps a POSIX message queue from being made."""
    if files_are_out():
        return HostError(_files())
    limit = resource.getrlimit(resource.RLIMIT_MSGQUEUE)[0]
    return HostError(
        f"cannot create a POSIX message queue: their bytes are limited to {limit} (ulimit -q), their number "
        "by /proc/sys/fs/mqueue/queues_max; raise them, or use fewer --channels or a smaller --queue-depth"
    )


def _files() -> str:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return f"too many open files: the limit is {most} (ulimit -n); raise it, or use fewer --channels"


def _processes() -> str:
    most = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    said = "no limit" if most == resource.RLIM_INFINITY else str(most)
    group = pids_left()
    beside = "" if group is None else f", and its control group (pids.max) allows {group} more"
    return f"cannot start a process: this user may have {said} (ulimit -u){beside}; use fewer --channels"


def _memory() -> str:
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY:
        return f"out of address space: the limit is {most >> 20} MiB (ulimit -v); raise it"
    return "out of memory: choose a smaller guest or fewer --channels"


def _file_size() -> str:
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return f"a file or shared memory would be larger than the limit of {most} bytes (ulimit -f); raise it"


_SAID: dict[int, Callable[[], str]] = {
    errno.EMFILE: _files,
    errno.ENFILE: lambda: "this host has too many open files (/proc/sys/fs/file-max)",
    errno.EAGAIN: _processes,
    errno.ENOMEM: _memory,
    errno.EFBIG: _file_size,
    errno.EROFS: lambda: "/dev/shm is mounted read-only: mount -o remount,rw /dev/shm",
}
