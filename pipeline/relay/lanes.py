"""Blocks of one stream that must be worked on one after another, since each has those before it as history.

On a slow link the history is worth more than several threads for one stream (`pipeline.codecs.zstd_history`);
on a fast one blocks stand by themselves, and any thread takes any of them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Generic, TypeVar

from pipeline.codecs.method import Encoder, Method
from pipeline.codecs.zstd_history import LEAST_LEVEL, HistoryDecoder, HistoryEncoder
from pipeline.errors import RunFailed

SLOTS = 2
"""Histories a stream and direction: one for each of the two levels that auto mixes."""

ANEW = 0x100
"""Of a frame's `history`: it begins here."""

HISTORY_BYTES_PER_SECOND = 30_000_000
"""Of the link, for each stream: its plain bytes are then no more than one thread compresses at zstd 5."""

Job = TypeVar("Job")


class Lane(Generic[Job]):
    """Jobs in order; at any time one thread has one of them."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._lock = threading.Lock()
        self._is_queued = False

    def put(self, job: Job) -> bool:
        """Whether the lane is to be queued for a thread."""
        with self._lock:
            self._jobs.append(job)
            was_queued, self._is_queued = self._is_queued, True
            return not was_queued

    def take(self) -> Job:
        """The next job, for the thread that has the lane."""
        return self._jobs.popleft()

    def leave(self) -> bool:
        """The job is done; whether the lane is to be queued again."""
        with self._lock:
            self._is_queued = bool(self._jobs)
            return self._is_queued


class Histories:
    """What compresses a stream's blocks. `mark` is the last block's `history` in its frame, 0 for none."""

    def __init__(self) -> None:
        self.mark = 0
        self._by_level: OrderedDict[int, tuple[int, HistoryEncoder]] = OrderedDict()
        """Slot and encoder; the least lately used first."""

    def encoder(self, method: Method, level: int) -> Encoder | None:
        """The one of this level, with its history; None where there is none to be had."""
        if method.name != "zstd" or level < LEAST_LEVEL:
            return None
        anew = 0 if level in self._by_level else ANEW
        if anew:
            full = len(self._by_level) == SLOTS
            slot = self._by_level.popitem(last=False)[1][0] if full else len(self._by_level) + 1
            self._by_level[level] = slot, HistoryEncoder(level)
        self._by_level.move_to_end(level)
        slot, encoder = self._by_level[level]
        self.mark = slot | anew
        return encoder

    def forget(self) -> None:
        """After a failure nobody knows what a history holds."""
        self.mark = 0
        self._by_level.clear()


class DecodeHistories:
    """What decompresses a stream's blocks."""

    def __init__(self) -> None:
        self._slots: dict[int, HistoryDecoder] = {}

    def decoder(self, mark: int) -> HistoryDecoder:
        """For a block with this `history`. Raises RunFailed for one that was never begun."""
        slot = mark & ~ANEW
        if mark & ANEW:
            self._slots[slot] = HistoryDecoder()
        if slot not in self._slots:
            raise RunFailed(f"a block goes on with history {slot}, which was never begun")
        return self._slots[slot]
