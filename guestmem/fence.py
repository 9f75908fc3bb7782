"""Memory fences, which CPython has no name for.

A full fence keeps this process's earlier stores before its later loads, as other processes see them. By
membarrier(2) with MEMBARRIER_CMD_GLOBAL_EXPEDITED, which executes a full barrier on the calling CPU on every
architecture (and interrupts others only where a process has registered for that). PRIVATE_EXPEDITED would
not do: the kernel returns at once in a process of one thread. Where a sandbox forbids the call, CPython's
lock stands in: on x86-64 it is a locked instruction, which is a full fence there; elsewhere it is not.
"""

from __future__ import annotations

import ctypes
import platform
import threading
from collections.abc import Callable

SYS_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}
"""asm/unistd.h of each architecture."""

MEMBARRIER_CMD_QUERY, MEMBARRIER_CMD_GLOBAL_EXPEDITED = 0, 1 << 1
"""linux/membarrier.h; since Linux 4.16."""

STORES_IN_ORDER = platform.machine() in ("x86_64", "AMD64", "i686")
"""On x86 other processors see a processor's stores in their order (Intel SDM volume 3, 9.2)."""

_libc = ctypes.CDLL(None, use_errno=True)
_lock = threading.Lock()


def _by_lock() -> None:
    with _lock:
        pass


def _by_membarrier() -> None:
    _libc.syscall(_NUMBER, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0)


def _has_membarrier() -> bool:
    if _NUMBER is None:
        return False
    commands = _libc.syscall(_NUMBER, MEMBARRIER_CMD_QUERY, 0, 0)
    return commands > 0 and bool(commands & MEMBARRIER_CMD_GLOBAL_EXPEDITED)


_NUMBER = SYS_MEMBARRIER.get(platform.machine())

full_fence: Callable[[], None] = _by_membarrier if _has_membarrier() else _by_lock
"""Order this process's stores before its later loads and stores, as other processes see them."""


def store_fence() -> None:
    """Order this process's stores before its later stores: nothing to do where the processor does it."""
    if not STORES_IN_ORDER:
        full_fence()
