"""Which limit of this host an error of the system means, and what a user can do about it."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Callable

from guestmem.segment import SHM
from pipeline.errors import HostError
from pipeline.processes.cgroup import pids_left

LEAST_ADDRESS_SPACE = 160 << 20
"""Below this numpy's OpenBLAS gives up with a line of its own (tried with ulimit -v, 2026)."""

LEAST_DATA = 80 << 20
"""The same with ulimit -d."""

FEW_FILES_LEFT = 8
"""So near to RLIMIT_NOFILE, an error without a number means that limit."""


def limit_of(error: BaseException) -> HostError | None:
    """The limit that an OSError means, as an error for the user; None where it means none."""
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and _is_no_room(error)):
        return HostError(_memory())
    if not isinstance(error, OSError):
        return None
    if error.filename == str(SHM):
        return HostError(_shared_memory(error))
    if error.errno is None and files_are_out():  # posix_ipc gives words without a number
        return HostError(_files())
    say = _SAID.get(error.errno or 0)
    return None if say is None else HostError(say())


def check_address_space() -> None:
    """Raises HostError where so little may be mapped that no command can start: OpenBLAS would end it."""
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY and most < LEAST_ADDRESS_SPACE:
        raise HostError(_memory())
    most = resource.getrlimit(resource.RLIMIT_DATA)[0]
    if most != resource.RLIM_INFINITY and most < LEAST_DATA:
        raise HostError(f"out of memory of its own: the limit is {most >> 20} MiB (ulimit -d); raise it")


def _is_no_room(error: ImportError) -> bool:
    return "failed to map segment" in str(error) or "cannot allocate memory" in str(error).lower()


def _shared_memory(error: OSError) -> str:
    """Why no shared memory can be made, by what /dev/shm is."""
    if error.errno == errno.EROFS:
        return f"{SHM} is mounted read-only: mount -o remount,rw {SHM}"
    if error.errno == errno.ENOSPC and os.statvfs(SHM).f_favail == 0:
        return f"{SHM} has no inodes left (df -i {SHM}): remove files, or mount -o remount,nr_inodes=0 {SHM}"
    if error.errno == errno.ENOSPC:
        return f"{SHM} is full (df {SHM}): remove files, or mount it larger"
    if error.errno == errno.ENOENT:
        return f"{SHM} is not there: mount -t tmpfs -o mode=1777 tmpfs {SHM}"
    if error.errno == errno.EACCES:
        status = os.stat(SHM)
        return (
            f"{SHM} is closed to this user: it has mode {stat.S_IMODE(status.st_mode):04o} and belongs "
            f"to user {status.st_uid}; chmod 1777 {SHM}"
        )
    return f"shared memory cannot be made in {SHM} ({error.strerror}); is shm_open(3) allowed here (seccomp)?"


def files_are_out() -> bool:
    """Whether this process has about as many descriptors as it may have."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most == resource.RLIM_INFINITY:
        return False
    try:
        return len(os.listdir("/proc/self/fd")) + FEW_FILES_LEFT >= most
    except OSError:
        return True  # not even a folder can be opened


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
}
