"""The guest's work: dirties pages at a rate, with real content."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guestmem.dirtylog import SharedDirtyLog
from guestmem.ram import GuestRam
from guestmem.segment import PAGE_BYTES

BATCH_PAGES = 64
"""Pages written between two looks at the clock: about 0.1 ms, and both copies stay in cache."""

TICK_SECONDS = 0.005
"""How long the guest rests when it is ahead of its rate."""

MAX_DEBT_SECONDS = 0.1
"""Writes owed beyond this are forgotten: a guest that was held up does not then burst."""


@dataclass(frozen=True)
class Workload:
    """How the guest writes: whole pages, uniformly chosen, at a rate (0 is an idle guest)."""

    rate_bytes_per_second: int
    seed: int = 1


class Writer:
    """Writes pages of `pool` into RAM and marks them."""

    def __init__(
        self,
        ram: GuestRam,
        log: SharedDirtyLog,
        pool: npt.NDArray[np.uint64],
        workload: Workload,
    ) -> None:
        self._ram = ram
        self._log = log
        self._pool = pool
        self._random = np.random.default_rng(workload.seed)
        self._rate_pages = workload.rate_bytes_per_second / PAGE_BYTES
        self._owed_since = time.monotonic()
        self._owed_pages = 0.0
        self.pages_written = 0

    def restart_clock(self) -> None:
        """Owe nothing for the time that has passed: called when a pause ends."""
        self._owed_since = time.monotonic()
        self._owed_pages = 0.0

    def work(self) -> float:
        """Write what is due, one batch at most; return how many seconds to rest."""
        if not self._rate_pages:
            return 3600.0
        now = time.monotonic()
        self._owed_pages += (now - self._owed_since) * self._rate_pages
        self._owed_pages = min(self._owed_pages, MAX_DEBT_SECONDS * self._rate_pages + 1)
        self._owed_since = now
        due = min(int(self._owed_pages), BATCH_PAGES)
        if due:
            self.write(due)
            self._owed_pages -= due
        if self._owed_pages >= 1:
            return 0.0
        return max(TICK_SECONDS, (1 - self._owed_pages) / self._rate_pages)

    def write(self, count: int) -> None:
        """Write `count` pages, then mark them."""
        pages = self._random.integers(0, self._ram.pages, count)
        source = self._random.integers(0, len(self._pool), count)
        self._ram.words[pages] = self._pool[source]
        self._log.mark(pages)
        self.pages_written += count
