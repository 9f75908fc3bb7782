"""Work on a whole image, by a thread a CPU: what is done runs in C, without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent import futures
from typing import TypeVar

from pipeline.processes.cgroup import allowed_cpus

T = TypeVar("T")
R = TypeVar("R")

MAX_THREADS = 32
AHEAD = 4
"""So many jobs a thread are handed out before the first result is taken."""


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
