"""Which pages are kept: hot ones first, for as long as it pays.

A look before round 1 finds pages that are written again and again, and how much of them changes. Later each
round's list says which pages came back. What is kept is measured: after a round in which pages with a base
took hardly fewer bytes than they would have whole, nothing is kept any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from guestmem.dirty_log.contract import DirtyLog
from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam, PageNumbers
from pipeline.delta_figures import DeltaFigures, DeltaRecord
from pipeline.source.kept_pages import NO_SLOT, NOTHING, DeltaCount, KeptPages
from pipeline.source.returning import FEWEST_PAGES, Returning

LOOK_SECONDS = 0.5
"""Each of the two halves of the look."""

FILL_CHANGED, FILL_PART = 0.6, 200
"""Where so little of pages that come back had changed, and one page of so many was written in the look, what
is left of the budget goes to other pages of round 1: far more than the hot ones come back in round 2. A page
costs some 1.5 us to keep."""

SWEPT_PART = 20
"""Where one page of so many was written in the look and hardly one of them came back, a guest sweeps over
its memory (preset memory-stress): what will have changed is not known, and keeping it would cost seconds."""

LEAST_SAVED = 0.05
"""A round that saved a smaller share of what its pages with a base would have taken whole is the last one."""

MAX_HEAT = 200


class Keeping:
    """The coordinator's side."""

    def __init__(self, kept: KeptPages) -> None:
        self._kept = kept
        self._heat = np.zeros(kept.ram_pages, np.uint8)
        self._page_of = np.zeros(kept.slots, np.uint32)
        self._used = 0
        self._counted = kept.totals()
        self._whole_page_bytes = 0.0
        self.record = DeltaRecord(kept.slots * PAGE_BYTES)

    @property
    def is_on(self) -> bool:
        return not self.record.stopped

    # ---------------------------------------------------------------- before round 1

    def look(self, ram: GuestRam, log: DirtyLog, scratch: PageNumbers, rest: Callable[[float], None]) -> str:
        """Watch a guest for a second; what was found, in words. What it wrote before is not fetched any more:
        all of RAM is sent after this."""
        log.sync(scratch)
        rest(LOOK_SECONDS)
        first = scratch[: log.sync(scratch)].copy()
        returning = Returning(ram, first)
        rest(LOOK_SECONDS)
        again = scratch[: log.sync(scratch)].copy()
        for pages in (first, again):
            self._heat[pages] += 1
        written = np.union1d(first, again)
        share = returning.share(ram, again)
        if share is None:
            said = f"{len(first)} and {len(again)} pages were written in half a second each"
            if len(written) * SWEPT_PART > ram.pages:
                said += ", and none of them twice"
                self._stop(said)
            else:
                self._give_slots(written)
            return said
        self.record.look_share_changed = share
        said = f"of pages that came back {share:.0%} of the bytes had changed"
        if share > 1 - LEAST_SAVED:
            self._stop(said)
        elif share <= FILL_CHANGED and len(written) * FILL_PART >= ram.pages:
            # A page that begins with zero is most often all zero, and then it is no base.
            self._give_slots(np.union1d(written, np.flatnonzero(ram.words[:, 0]).astype(np.uint32)))
        else:
            self._give_slots(written)
        return said

    # ---------------------------------------------------------------- rounds

    def begin(self, number: int, pages: PageNumbers) -> None:
        """A round of these pages begins: give slots to those that are to be kept. Before round 1 the look did
        it, ahead of the clock: 1 GiB of memory takes some 0.4 s to get."""
        if self.is_on and number > 1:
            self._heat[pages[self._heat[pages] < MAX_HEAT]] += 1
            self._give_slots(pages)

    def _give_slots(self, wanted: PageNumbers) -> None:
        kept = self._kept
        without = wanted[kept.slot_of[wanted] == NO_SLOT]
        without = without[np.argsort(-self._heat[without].astype(np.int64), kind="stable")]
        free = self._reserved(min(kept.slots - self._used, len(without)))
        self._assign(without[:free], np.arange(self._used, self._used + free, dtype=np.int32))
        self._used += free
        self.record.memory_bytes = max(self.record.memory_bytes, self._used * PAGE_BYTES)
        self._take_from_cooler(without[free:], wanted)

    def _reserved(self, slots: int) -> int:
        """So many more slots, with their memory; none any more where that is used up."""
        try:
            if slots:
                self._kept.reserve(self._used, slots)
        except OSError:
            self._kept.slots = self._used
            return 0
        return slots

    def _take_from_cooler(self, without: PageNumbers, wanted: PageNumbers) -> None:
        """The hottest pages without a slot take those of cooler ones that did not come back."""
        if not len(without) or not self._used:
            return
        holders = self._page_of[: self._used]
        idle = np.flatnonzero(~np.isin(holders, wanted))
        idle = idle[np.argsort(self._heat[holders[idle]], kind="stable")][: len(without)]
        takers = without[: len(idle)]
        warmer = self._heat[takers] >= self._heat[holders[idle]]
        idle, takers = idle[warmer], takers[warmer]
        self._kept.slot_of[holders[idle]] = NO_SLOT
        self._assign(takers, idle.astype(np.int32))

    def _assign(self, pages: PageNumbers, slots: np.ndarray[Any, np.dtype[np.int32]]) -> None:
        self._kept.round_of[slots] = NOTHING
        self._page_of[slots] = pages
        self._kept.slot_of[pages] = slots

    def settled(
        self, number: int, missing: PageNumbers, normal_pages: int, payload_bytes: int, seconds: float
    ) -> DeltaFigures:
        """The barrier is behind round `number`: what is `missing` is no base. `payload_bytes` is what all of
        its normal pages took, `seconds` how long it was. What deltas did in it."""
        kept = self._kept
        kept.forget(missing)
        totals = kept.totals()
        moved, self._counted = totals - self._counted, totals
        found = self._figures(number, moved, normal_pages, payload_bytes)
        record = self.record
        cpu_seconds = int(moved[DeltaCount.CPU_NS]) / 1e9
        record.cpu_seconds += cpu_seconds
        if number == 1:
            record.round_1_cpu_seconds = record.cpu_seconds
        record.add(found)
        if self.is_on and found.based_pages >= FEWEST_PAGES:
            whole = found.based_bytes + found.saved_bytes
            if found.saved_bytes < LEAST_SAVED * whole:
                self._stop(f"round {number} saved {found.saved_bytes / max(1, whole):.0%} of its bytes")
            elif cpu_seconds / kept.channels > seconds * found.saved_bytes / max(1, payload_bytes):
                # So many bytes take less time on the wire than not sending them took each channel.
                self._stop(f"in round {number} deltas took more time than they saved")
        return found

    def _figures(
        self, number: int, moved: np.ndarray[Any, np.dtype[np.int64]], normal_pages: int, payload_bytes: int
    ) -> DeltaFigures:
        deltas, delta_bytes = int(moved[DeltaCount.DELTA_PAGES]), int(moved[DeltaCount.DELTA_BYTES])
        whole = normal_pages - deltas
        if whole >= FEWEST_PAGES or not self._whole_page_bytes:
            self._whole_page_bytes = (payload_bytes - delta_bytes) / whole if whole > 0 else PAGE_BYTES / 2
        return DeltaFigures(
            pages=deltas,
            bytes=delta_bytes,
            based_pages=int(moved[DeltaCount.BASED_PAGES]),
            based_bytes=int(moved[DeltaCount.BASED_BYTES]),
            saved_bytes=max(0, round(deltas * self._whole_page_bytes) - delta_bytes),
            missed_pages=normal_pages - int(moved[DeltaCount.BASED_PAGES])
            if number > 1 and self.is_on
            else 0,
        )

    def _stop(self, why: str) -> None:
        self.record.stopped = why
        self._kept.slot_of[:] = NO_SLOT
        self._used = 0
