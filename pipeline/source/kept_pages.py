"""Pages as they were last sent, kept for those that come back: then only what changed in them has to go.

In shared memory of the send side, a page a slot. Between rounds the coordinator says which pages have one
(`pipeline.source.keeping`); in a round each page is one channel's, which compares it with its kept version,
and keeps the new one. A version is a base only from a later round on, and only where the barrier said that it
was applied: the coordinator forgets the others before the next round begins."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from guestmem.page import PAGE_BYTES, WORDS_PER_PAGE
from guestmem.segment import create_segment, map_segment
from pipeline.packets.delta import Words, change, pack_group

Pages = npt.NDArray[np.uint32]
NO_SLOT = -1
NOTHING = 0
"""As the round of a slot: what it holds is no base."""


class DeltaCount(IntEnum):
    """What a channel counts. All only ever grow."""

    DELTA_PAGES = 0
    """Pages that went as a delta,"""
    DELTA_BYTES = 1
    """and the payload of these."""
    BASED_PAGES = 2
    """Pages that had a base, whichever way they went,"""
    BASED_BYTES = 3
    """and their payload, that of whole ones by their packet's mean."""
    CPU_NS = 4
    """Of comparing, packing and keeping."""


@dataclass(frozen=True)
class Split:
    """The pages of a packet in two: the order in which they go, how many of the first ones are whole, what
    the deltas are against, and their group."""

    order: npt.NDArray[np.intp]
    whole: int
    bases: Pages
    group: bytes
    with_base: int
    """So many of all had a base."""


class KeptPages:
    """The slots, and which page is in which."""

    def __init__(self, ram_pages: int, budget_bytes: int, channels: int) -> None:
        """Create them, all empty. Raises OSError when there is no memory for them."""
        self.slots = budget_bytes // PAGE_BYTES
        self.ram_pages = ram_pages
        self.channels = channels
        self._count_bytes = 8 * channels * len(DeltaCount)
        self._books = create_segment("kept", self._count_bytes + 4 * (ram_pages + self.slots), reserve=True)
        self._store = create_segment("kept-pages", max(1, self.slots) * PAGE_BYTES)
        self.attach()
        self.slot_of[:] = NO_SLOT

    def close(self) -> None:
        """Nobody maps it any more after this."""
        for fd in (self._books, self._store):
            os.close(fd)

    def attach(self) -> None:
        """Map it in this process."""
        books = map_segment(self._books, writable=True)
        self.counts: npt.NDArray[np.int64] = np.frombuffer(
            books, np.int64, self.channels * len(DeltaCount)
        ).reshape(self.channels, len(DeltaCount))
        self.slot_of: npt.NDArray[np.int32] = np.frombuffer(
            books, np.int32, self.ram_pages, self._count_bytes
        )
        self.round_of: npt.NDArray[np.uint32] = np.frombuffer(
            books, np.uint32, self.slots, self._count_bytes + 4 * self.ram_pages
        )
        """Of a slot: the round that brought what it holds; NOTHING where that is no base."""
        store = map_segment(self._store, writable=True)
        self._words: Words = np.frombuffer(store, np.uint64, self.slots * WORDS_PER_PAGE).reshape(
            self.slots, WORDS_PER_PAGE
        )

    def reserve(self, first: int, slots: int) -> None:
        """Give slots their memory, which they have not before. Raises OSError when there is none."""
        os.posix_fallocate(self._store, first * PAGE_BYTES, slots * PAGE_BYTES)

    def totals(self) -> npt.NDArray[np.int64]:
        """The sum over all channels, by `DeltaCount`."""
        total: npt.NDArray[np.int64] = self.counts.sum(axis=0)
        return total

    def forget(self, pages: Pages) -> None:
        """What is kept of these is no base any more."""
        slots = self.slot_of[pages]
        self.round_of[slots[slots != NO_SLOT]] = NOTHING


class Keeper:
    """A channel's hand in the kept pages."""

    def __init__(self, kept: KeptPages, channel: int) -> None:
        kept.attach()
        self._kept = kept
        self._row = memoryview(kept.counts[channel])

    def has_any(self, pages: Pages) -> bool:
        """Whether one of these pages has a slot."""
        return bool((self._kept.slot_of[pages] != NO_SLOT).any())

    def split(self, pages: Pages, words: Words, round_number: int) -> Split:
        """Compare pages, as they go in this round, with what is kept of them, and keep them."""
        began = time.thread_time_ns()
        kept = self._kept
        slots = kept.slot_of[pages]
        held = np.flatnonzero(slots != NO_SLOT)
        rounds = kept.round_of[slots[held]]
        based = held[rounds != NOTHING]
        found = self._deltas(based, slots, words, len(pages))
        kept.round_of[slots[held]] = NOTHING
        kept._words[slots[held]] = words[held]
        kept.round_of[slots[held]] = round_number
        self._row[DeltaCount.CPU_NS] += time.thread_time_ns() - began
        return found

    def _deltas(
        self, based: npt.NDArray[np.intp], slots: npt.NDArray[np.int32], words: Words, pages: int
    ) -> Split:
        everything = np.arange(pages)
        if not len(based):
            return Split(everything, pages, np.zeros(0, np.uint32), b"", 0)
        new = words[based]
        found = change(new, self._kept._words[slots[based]])
        deltas = based[found.as_delta]
        whole = np.delete(everything, deltas)
        group = pack_group(new, found) if len(deltas) else b""
        bases = self._kept.round_of[slots[deltas]].copy()
        return Split(np.concatenate([whole, deltas]), len(whole), bases, group, len(based))

    def account(self, split: Split, whole_bytes: int, delta_bytes: int) -> None:
        """What the two groups of a packet took on the wire."""
        row, deltas = self._row, len(split.bases)
        whole_with_base = split.with_base - deltas
        of_whole = whole_bytes * whole_with_base // split.whole if split.whole else 0
        row[DeltaCount.DELTA_PAGES] += deltas
        row[DeltaCount.DELTA_BYTES] += delta_bytes
        row[DeltaCount.BASED_PAGES] += split.with_base
        row[DeltaCount.BASED_BYTES] += delta_bytes + of_whole

    def forget(self, pages: Pages) -> None:
        """These go in a way that makes no base."""
        self._kept.forget(pages)
