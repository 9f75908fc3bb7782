"""A full memory fence, which CPython has no name for."""

from __future__ import annotations

import threading

_lock = threading.Lock()


def full_fence() -> None:
    """Order this process's stores before its later loads and stores, as other processes see them.

    CPython's lock is a POSIX semaphore or an atomic compare-and-swap. On x86-64 that is a locked
    instruction, which keeps a clear before a later read; without one, the processor may swap them.
    """
    with _lock:
        pass
