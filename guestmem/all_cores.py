"""Work on a whole image, by a thread a CPU: what is done runs in C, without the interpreter's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from concurrent import futures
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

MAX_THREADS = 32
AHEAD = 4
"""So many jobs a thread are handed out before the first result is taken."""


def allowed_cpus() -> set[int]:
    """The CPUs that this process may run on; all of them where a sandbox does not let it ask."""
    try:
        return set(os.sched_getaffinity(0))
    except OSError:
        return set(range(os.cpu_count() or 1))


def by_all_cores(work: Callable[[T], R], jobs: Iterable[T]) -> Generator[R, None, None]:
    """The results in order. What `work` raises is raised here. Jobs that have not begun then are not done,
    nor when the caller stops asking."""
    threads = min(MAX_THREADS, len(allowed_cpus()))
    waiting: list[futures.Future[R]] = []
    pool = futures.ThreadPoolExecutor(threads)
    try:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) >= AHEAD * threads:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        pool.shutdown(cancel_futures=True)
