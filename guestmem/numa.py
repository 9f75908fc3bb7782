"""Memory on a NUMA node of choice, and where memory lies.

Layouts: set_mempolicy(2), linux/mempolicy.h, proc(5) (/proc/PID/numa_maps), /sys/devices/system/node.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
from pathlib import Path

from guestmem.aligned import address_of
from guestmem.prefault import Mapping

SYS_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}
MPOL_DEFAULT, MPOL_PREFERRED = 0, 1
MASK_BITS = 1024
"""More nodes than any kernel has."""

NODES = Path("/sys/devices/system/node")
NUMA_MAPS = Path("/proc/self/numa_maps")

_libc = ctypes.CDLL(None, use_errno=True)


def nodes_here(folder: Path = NODES) -> list[int]:
    """The NUMA nodes of this host; empty where the kernel knows of none."""
    return sorted(int(path.name[4:]) for path in folder.glob("node[0-9]*") if path.name[4:].isdigit())


def prefer_node(node: int | None) -> None:
    """From now on this process, and those that it forks, get memory of this node as long as it has any.

    None is the kernel's choice again. Raises OSError.
    """
    number = SYS_SET_MEMPOLICY.get(platform.machine())
    if number is None:
        if node is None:
            return
        raise OSError(errno.ENOSYS, f"set_mempolicy(2) is not known on {platform.machine()}")
    bits = 8 * ctypes.sizeof(ctypes.c_ulong)
    mask = (ctypes.c_ulong * (MASK_BITS // bits))()
    if node is not None:
        mask[node // bits] = 1 << node % bits
    mode = MPOL_DEFAULT if node is None else MPOL_PREFERRED
    where = None if node is None else ctypes.byref(mask)
    if _libc.syscall(number, mode, where, ctypes.c_ulong(MASK_BITS)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def nodes_of(mapping: Mapping, maps: Path = NUMA_MAPS) -> dict[int, int]:
    """Bytes of a mapping that this process has mapped, by NUMA node; empty where the kernel does not say."""
    begin = f"{address_of(mapping):x} "
    try:
        lines = maps.read_text().splitlines()
    except OSError:
        return {}
    line = next((line for line in lines if line.startswith(begin)), "")
    page = re.search(r"kernelpagesize_kB=(\d+)", line)
    if page is None:
        return {}
    return {int(node): int(pages) * int(page[1]) << 10 for node, pages in re.findall(r" N(\d+)=(\d+)", line)}
