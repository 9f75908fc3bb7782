"""Does a workload: writes its pages and bytes at its rate, and marks them after writing."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from guestmem.dirty_log.contract import Marks
from guestmem.page import PAGE_BYTES, WORDS_PER_PAGE
from guestmem.ram import GuestRam
from guestmem.timeline import Timeline
from guestmem.workload import INCREMENT, Phase, Workload

BATCH_WRITES = 64
"""Pages written before the clock is read again: about 0.1 ms, and both copies stay in cache."""

BLOCK_WRITES = 2048
"""Writes drawn from the seed at once. A batch never crosses a block, so what is written does not
depend on how the clock cuts the work into batches."""

RUN_PAGES = 32
"""Neighbouring pages of the pool that are written one after the other, as programs do."""

TICK_SECONDS = 0.002
"""The shortest rest, so that a guest at a low rate does not use a CPU to wait."""

MAX_DEBT_SECONDS = 0.25
"""Writes that are overdue by more than this are dropped, so that a guest that was held up does not
write in a burst afterwards."""

DELTA_WORDS = 4
"""64-bit words that a write of content `delta` changes."""

CONSTANT = 0x5A5A5A5A5A5A5A5A
MAX_THROTTLE_PERCENT = 99


class Writer:
    """Does a workload in small steps: `work` is called over and over, and never blocks."""

    def __init__(self, ram: GuestRam, marks: Marks, pool: npt.NDArray[np.uint64], workload: Workload) -> None:
        """`pool` holds the pages that content `corpus` writes: (n, 512) uint64, n at least 1."""
        self.marks = marks
        self.timeline = Timeline()
        self.writes = 0
        self.throttle_percent = 0
        self._ram = ram
        self._bytes = ram.words.view(np.uint8)
        self._pool = pool
        self._workload = workload
        self._cycle = 0
        self._owed = 0.0
        self._owed_since = self._phase_began = time.monotonic()
        self._enter(0)

    def _enter(self, index: int) -> None:
        """Begin a phase. What it writes depends only on the seed, its index and the number of cycles."""
        self._index = index
        self.phase: Phase | None = self._workload.phases[index]
        seed = [self._workload.seed, index, self._cycle]
        sequence = np.random.SeedSequence(seed).generate_state(3)
        self._stream = self.phase.pattern.stream(self._ram.pages, int(sequence[0]))
        self._draw = np.random.default_rng(int(sequence[1]))
        self._fresh = np.random.default_rng(int(sequence[2]))
        self._writes_per_second = self.phase.rate_bytes_per_second / self.phase.write_bytes
        self._used = BLOCK_WRITES

    def restart_clock(self) -> None:
        """Drop what is due for the time that has passed; called when a pause ends."""
        now = time.monotonic()
        self._phase_began += now - self._owed_since
        self._owed_since = now
        self._owed = 0.0

    def work(self) -> float:
        """Write what is due, at most one batch; returns the seconds to rest before the next call."""
        now = time.monotonic()
        self._follow_phases(now)
        rate = self._rate()
        self._owed = min(self._owed + (now - self._owed_since) * rate, MAX_DEBT_SECONDS * rate + 1)
        self._owed_since = now
        if not rate:
            return self._until_next_phase(now)
        due = min(int(self._owed), BATCH_WRITES)
        if due:
            self._owed -= self.write(due)
        if self._owed >= 1:
            return 0.0
        return min(max(TICK_SECONDS, (1 - self._owed) / rate), self._until_next_phase(now))

    def _rate(self) -> float:
        """Writes per second at present, throttled."""
        if self.phase is None:
            return 0.0
        return self._writes_per_second * (1 - self.throttle_percent / 100)

    def rate_asked(self) -> float:
        """The bytes per second that the phase asks for, throttled."""
        return self._rate() * self.phase.write_bytes if self.phase else 0.0

    def _until_next_phase(self, now: float) -> float:
        if self.phase is None or not self.phase.seconds:
            return 3600.0
        return max(0.0, self._phase_began + self.phase.seconds - now)

    def _follow_phases(self, now: float) -> None:
        while self.phase is not None and self._until_next_phase(now) == 0.0:
            self._phase_began += self.phase.seconds
            self._owed_since = max(self._owed_since, self._phase_began)
            if self._index + 1 < len(self._workload.phases):
                self._enter(self._index + 1)
            elif self._workload.loop:
                self._cycle += 1
                self._enter(0)
            else:
                self.phase = None

    def write(self, count: int) -> int:
        """Write at most `count` pages, then mark them; returns how many were written."""
        phase = self.phase
        assert phase is not None
        if self._used == BLOCK_WRITES:
            self._next_block()
        end = min(self._used + count, BLOCK_WRITES)
        pages = self._pages[self._used : end]
        source = self._source[self._used : end]
        self._used = end
        self._put(phase, pages, source)
        self.marks.mark(pages)
        self.writes += len(pages)
        self.timeline.add(len(pages) * phase.write_bytes)
        return len(pages)

    def _next_block(self) -> None:
        self._used = 0
        self._pages = self._stream(BLOCK_WRITES)
        runs = self._draw.integers(0, len(self._pool), BLOCK_WRITES // RUN_PAGES)
        steps = np.arange(BLOCK_WRITES) % RUN_PAGES
        self._source = (np.repeat(runs, RUN_PAGES) + steps) % len(self._pool)
        self._offset = int(self._draw.integers(0, PAGE_BYTES))
        self._words = self._draw.choice(WORDS_PER_PAGE, DELTA_WORDS, replace=False)

    def _put(self, phase: Phase, pages: npt.NDArray[np.intp], source: npt.NDArray[np.intp]) -> None:
        words = self._ram.words
        if phase.content == INCREMENT:
            self._bytes[pages, 0] += 1
            return
        if phase.content == "delta":
            fresh = self._fresh.integers(0, 1 << 64, (len(pages), DELTA_WORDS), np.uint64)
            words[pages[:, None], self._words] = fresh
            return
        if phase.content == "corpus":
            data = self._pool[source]
        elif phase.content == "random":
            data = self._fresh.integers(0, 1 << 64, (len(pages), WORDS_PER_PAGE), np.uint64)
        else:
            value = CONSTANT if phase.content == "constant" else 0
            data = np.full((len(pages), WORDS_PER_PAGE), value, np.uint64)
        if phase.write_bytes == PAGE_BYTES:
            words[pages] = data
            return
        start = min(self._offset, PAGE_BYTES - phase.write_bytes)
        end = start + phase.write_bytes
        self._bytes[pages, start:end] = data.view(np.uint8)[:, start:end]
