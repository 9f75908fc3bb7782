"""Writers of a small guest RAM, and the clock and marks that a test looks at."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from guestmem.page import WORDS_PER_PAGE
from guestmem.ram import GuestRam
from guestmem.workload import Workload
from guestmem.writer import Writer

MIB = 1 << 20


class Noted:
    """Marks that can be looked at."""

    def __init__(self) -> None:
        self.pages: list[int] = []

    def mark(self, pages: npt.NDArray[np.intp]) -> None:
        self.pages += pages.tolist()


def writer(workload: Workload, size: int = 4 * MIB) -> tuple[Writer, GuestRam, Noted]:
    ram, noted = GuestRam.create(size, "test"), Noted()
    pool = np.random.default_rng(0).integers(1, 1 << 63, (256, WORDS_PER_PAGE), dtype=np.uint64)
    return Writer(ram, noted, pool, workload), ram, noted


class Clock:
    """Time that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def run(self, hand: Writer, seconds: float, step: float = 0.0005) -> int:
        """Bytes written in so many seconds, each call of `work` taking `step`."""
        before, end = hand.timeline.total_bytes, self.now + seconds
        while self.now < end:
            rest = hand.work()
            self.now = min(end, self.now + max(rest, step))
        return hand.timeline.total_bytes - before
