"""Who may start: a list in order, and slots that each takes while it runs.

Slots are what links and CPUs carry, streams of a host, and migrations in all. A job that does not fit waits at
one slot that is full, and is asked again when that one has room, so that a long list costs little.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

NEARLY = 1 + 1e-9
TRIES = 8
"""So many that wait at one slot are asked before the slot is left alone."""

Needs = Sequence[tuple[int, float]]


class Admission:
    """Jobs by number. A job that is larger than a slot fits where nobody else is."""

    def __init__(self, needs: Sequence[Needs], limits: Sequence[float], order: Iterable[int]) -> None:
        self._needs = needs
        self._limits = limits
        self._taken = [0.0] * len(limits)
        self._count = [0] * len(limits)
        self._order = list(order)
        self._place = {job: at for at, job in enumerate(self._order)}
        self._waiting: dict[int, list[int]] = {}

    def first(self) -> list[int]:
        """Those that may start at once."""
        return [job for job in self._order if self._start(job)]

    def release(self, job: int) -> list[int]:
        """It has ended: those that may start now."""
        freed = []
        for slot, amount in self._needs[job]:
            self._count[slot] -= 1
            self._taken[slot] = self._taken[slot] - amount if self._count[slot] else 0.0
            if self._waiting.get(slot):
                freed.append(slot)
        return self._ask(freed)

    def _ask(self, freed: list[int]) -> list[int]:
        """In order over all that wait at these slots."""
        started = []
        tries = dict.fromkeys(freed, TRIES)
        again: list[tuple[int, int]] = []
        while tries:
            slot = min(tries, key=lambda one: self._waiting[one][0])
            place = heapq.heappop(self._waiting[slot])
            job = self._order[place]
            full = self._full_slot(job)
            if full is None:
                self._take(job)
                started.append(job)
            elif full in tries:
                again.append((full, place))
                tries[full] -= 1
            else:
                heapq.heappush(self._waiting.setdefault(full, []), place)
            tries = {one: left for one, left in tries.items() if left > 0 and self._waiting[one]}
        for slot, place in again:
            heapq.heappush(self._waiting.setdefault(slot, []), place)
        return started

    def _start(self, job: int) -> bool:
        full = self._full_slot(job)
        if full is None:
            self._take(job)
            return True
        heapq.heappush(self._waiting.setdefault(full, []), self._place[job])
        return False

    def _full_slot(self, job: int) -> int | None:
        for slot, amount in self._needs[job]:
            if self._count[slot] and self._taken[slot] + amount > self._limits[slot] * NEARLY:
                return slot
        return None

    def _take(self, job: int) -> None:
        for slot, amount in self._needs[job]:
            self._taken[slot] += amount
            self._count[slot] += 1
