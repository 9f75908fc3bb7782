"""The limits of this process's control group and of those above it: memory and CPU time.

A unit's `MemoryMax=`, a container's or a pod's limits stand there. Layouts: cgroup v2 in the kernel's
Documentation/admin-guide/cgroup-v2.rst, v1 in cgroup-v1/memory.rst and scheduler/sched-bwc.rst. A group is
followed up to the root, since the tightest limit on the way is the one that holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from guestmem.all_cores import allowed_cpus

MOUNT = Path("sys/fs/cgroup")
NO_LIMIT_V1 = 1 << 60
"""v1 writes "no limit" as the largest multiple of the page, just below 2^63."""

RECLAIMABLE_V2 = ("active_file", "inactive_file", "slab_reclaimable")
RECLAIMABLE_V1 = ("total_active_file", "total_inactive_file")
"""Lines of memory.stat: what the kernel gives back when memory is short. Shared memory is not in them."""


def memory_left_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that this process's groups still allow, page cache counted as free; None without a limit."""
    found = [left for folder in _folders(root, "") if (left := _left_v2(folder)) is not None]
    found += [left for folder in _folders(root, "memory") if (left := _left_v1(folder)) is not None]
    return min(found, default=None)


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that this process's groups may use; None without a limit."""
    found = [quota for folder in _folders(root, "") if (quota := _quota_v2(folder)) is not None]
    found += [quota for folder in _folders(root, "cpu") if (quota := _quota_v1(folder)) is not None]
    return min(found, default=None)


def usable_cpus(root: Path = Path("/")) -> float:
    """CPUs that this process can keep busy: those it may run on, within its groups' quota."""
    here = float(len(allowed_cpus()))
    quota = cpu_quota(root)
    return here if quota is None else min(here, quota)


def pids_left(root: Path = Path("/")) -> int | None:
    """Processes that this process's groups still allow; None without a limit."""
    found = []
    for folder in (*_folders(root, ""), *_folders(root, "pids")):
        limit, used = _number(folder / "pids.max"), _number(folder / "pids.current")
        if limit is not None and used is not None:
            found.append(max(0, limit - used))
    return min(found, default=None)


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """The group's folder and those above it, up to the mount. `controller` empty is v2."""
    path = _own_path(root, controller)
    if path is None:
        return
    for mount in _mounts(root, controller):
        if not mount.is_dir():
            continue
        folder = mount / path.lstrip("/")
        # In a container the path may be one of the host's; then the mount itself is the group.
        while folder != mount and not folder.is_dir():
            folder = folder.parent
        while True:
            yield folder
            if folder == mount:
                return
            folder = folder.parent


def _own_path(root: Path, controller: str) -> str | None:
    """From /proc/self/cgroup (cgroups(7)): `ID:CONTROLLERS:PATH`, v2 with ID 0 and no controllers."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller and controller in controllers.split(","):
            return path
        if not controller and number == "0" and not controllers:
            return path
    return None


def _mounts(root: Path, controller: str) -> list[Path]:
    base = root / MOUNT
    if not controller:
        return [base, base / "unified"]
    named = [folder for folder in sorted(base.glob("*")) if controller in folder.name.split(",")]
    return named[:1]


def _left_v2(folder: Path) -> int | None:
    limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
    if limit is None or used is None:
        return None
    return max(0, limit - used + _stat(folder, RECLAIMABLE_V2))


def _left_v1(folder: Path) -> int | None:
    limit, used = _number(folder / "memory.limit_in_bytes"), _number(folder / "memory.usage_in_bytes")
    if limit is None or used is None or limit >= NO_LIMIT_V1:
        return None
    return max(0, limit - used + _stat(folder, RECLAIMABLE_V1))


def _stat(folder: Path, names: tuple[str, ...]) -> int:
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    fields = (line.split() for line in lines)
    return sum(int(field[1]) for field in fields if len(field) == 2 and field[0] in names)


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(folder: Path) -> float | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota is not None and period and quota > 0 else None


def _number(file: Path) -> int | None:
    """A file's one number; None where there is none, or it says `max`."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
