"""Pages that a guest writes again: how much of them changes, which is what a delta of them takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from guestmem.ram import GuestRam, PageNumbers
from pipeline.forecast.rounds import Cost
from pipeline.packets.delta import Words, changed_share
from pipeline.source.keeping import FEWEST_PAGES, FILL_CHANGED, LEAST_SAVED

LOOK_PAGES = 512
KEEP_NS, COMPARE_NS = 0.4, 1.2
"""CPU a byte of keeping a page, and of comparing it and packing what changed (numpy, an AMD EPYC)."""

HOT_COVERAGE, FILLED_COVERAGE, MOST_COVERAGE = 0.5, 1.15, 0.95
"""Of pages that come back, how many have a kept version: where only hot ones are kept; where all of the
budget is filled, times its share of RAM (2 GiB of preset database with a budget of 1 GiB: 61 %)."""


class Returning:
    """Samples pages at a first moment, and looks at them again."""

    def __init__(self) -> None:
        self._pages: PageNumbers | None = None
        self._before: Words | None = None

    def first(self, ram: GuestRam, pages: PageNumbers) -> None:
        """These were written just now."""
        if self._pages is None and len(pages):
            self._pages = pages[:: max(1, len(pages) // LOOK_PAGES)][:LOOK_PAGES].copy()
            self._before = ram.words[self._pages]

    def share(self, ram: GuestRam, later: PageNumbers) -> float:
        """Of the bytes of those that were written again, how many a delta has; 1.0 where too few were."""
        if self._pages is None or self._before is None:
            return 1.0
        back = np.isin(self._pages, later)
        if np.count_nonzero(back) < FEWEST_PAGES:
            return 1.0
        return changed_share(ram.words[self._pages[back]], self._before[back])


def with_deltas(
    whole: Cost, written: Cost, share: float, normal_bytes: float, budget_bytes: int
) -> tuple[Cost, Cost]:
    """The costs of round 1 and of later ones with so much memory for kept versions."""
    if not budget_bytes or share > 1 - LEAST_SAVED or normal_bytes <= 0:
        return whole, written
    kept = min(1.0, budget_bytes / normal_bytes)
    coverage = min(MOST_COVERAGE, FILLED_COVERAGE * kept) if share <= FILL_CHANGED else HOT_COVERAGE * kept
    left = 1 - coverage * (1 - share)
    return (
        replace(whole, send_ns=whole.send_ns + KEEP_NS * kept),
        replace(
            written,
            send_ns=written.send_ns * left + COMPARE_NS * coverage,
            recv_ns=written.recv_ns * left + COMPARE_NS * coverage,
            wire_share=written.wire_share * left,
        ),
    )
