"""Who may start: a list in order, and slots that each takes while it runs.

Slots are what links and CPUs carry, streams of a host, and migrations in all. A job that does not fit waits
at one slot that is full, and is asked again when that one has room, so that a long list costs little.

What is left of a link when the next in order does not fit need not lie idle: with `patience`, a job may start
with a limit of so many bytes a second, the calmest first, since a slow migration sends again what its guest
rewrites. It may take as long as `patience` times what the others that wait for that link will take.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

NEARLY = 1 + 1e-9
TRIES = 8
"""So many that wait at one slot are asked before the slot is left alone."""

LEAST_SHARE = 0.04
"""A job is not started with a limit below this share of its full rate."""


@dataclass(frozen=True)
class Asked:
    """What a job takes: a stream of each of `streams`; of `carried` so much a byte, at `most` bytes a second.

    `wire_bytes` is what it sends at that rate, `unrest` how much of it a guest rewrites meanwhile, and
    `seconds_at` how long it takes at a lower rate.
    """

    streams: tuple[int, ...]
    carried: tuple[tuple[int, float], ...]
    most: float
    wire_bytes: float
    unrest: float
    seconds_at: Callable[[float], float]


@dataclass(frozen=True)
class Start:
    """A job may start, with at most so many bytes a second; None is no limit."""

    job: int
    limit: float | None = None


class Admission:
    """Jobs by number. A job that is larger than a slot fits where nobody else is."""

    def __init__(
        self, asked: Sequence[Asked], limits: Sequence[float], order: Iterable[int], patience: float
    ) -> None:
        self._asked, self._limits, self._patience = asked, limits, patience
        self._taken = [0.0] * len(limits)
        self._count = [0] * len(limits)
        self._waits_for = [0.0] * len(limits)
        self._order = list(order)
        self._place = {job: at for at, job in enumerate(self._order)}
        self._waiting: dict[int, list[int]] = {}
        self._calm: dict[int, list[tuple[float, int]]] = {}
        self._running: dict[int, float] = {}
        self._started: set[int] = set()
        for job in self._order:
            for slot, amount in asked[job].carried:
                self._waits_for[slot] += amount * asked[job].wire_bytes

    def first(self) -> list[Start]:
        """Those that may start at once."""
        started = []
        for job in self._order:
            full = self._full_slot(job)
            if full is None:
                started.append(self._take(job, None))
            else:
                self._park(full, job)
        return started + self._fill(list(self._waiting))

    def release(self, job: int) -> list[Start]:
        """It has ended: those that may start now."""
        rate, asked = self._running.pop(job), self._asked[job]
        freed = []
        for slot, amount in (*((one, 1.0) for one in asked.streams), *self._amounts(asked, rate)):
            self._count[slot] -= 1
            self._taken[slot] = self._taken[slot] - amount if self._count[slot] else 0.0
            if self._waiting.get(slot):
                freed.append(slot)
        started = self._ask(freed)
        return started + self._fill(freed)

    def _amounts(self, asked: Asked, rate: float) -> Iterable[tuple[int, float]]:
        return ((slot, amount * rate) for slot, amount in asked.carried)

    # ------------------------------------------------------------- in order

    def _ask(self, freed: list[int]) -> list[Start]:
        """In order over all that wait at these slots."""
        started = []
        tries = dict.fromkeys(freed, TRIES)
        again: list[tuple[int, int]] = []
        while tries := {slot: left for slot, left in tries.items() if left > 0 and self._head(slot)}:
            slot = min(tries, key=lambda one: self._waiting[one][0])
            job = self._order[heapq.heappop(self._waiting[slot])]
            full = self._full_slot(job)
            if full is None:
                started.append(self._take(job, None))
            elif full in tries:
                again.append((full, job))
                tries[full] -= 1
            else:
                self._park(full, job)
        for slot, job in again:
            self._park(slot, job)
        return started

    def _head(self, slot: int) -> bool:
        """Whether somebody waits there; who has started from elsewhere does not."""
        waiting = self._waiting[slot]
        while waiting and self._order[waiting[0]] in self._started:
            heapq.heappop(waiting)
        return bool(waiting)

    def _park(self, slot: int, job: int) -> None:
        heapq.heappush(self._waiting.setdefault(slot, []), self._place[job])
        if self._patience:
            heapq.heappush(self._calm.setdefault(slot, []), (self._asked[job].unrest, job))

    def _full_slot(self, job: int) -> int | None:
        asked = self._asked[job]
        for slot in asked.streams:
            if self._count[slot] + 1 > self._limits[slot]:
                return slot
        for slot, amount in self._amounts(asked, asked.most):
            if self._count[slot] and self._taken[slot] + amount > self._limits[slot] * NEARLY:
                return slot
        return None

    def _take(self, job: int, limit: float | None) -> Start:
        asked = self._asked[job]
        rate = asked.most if limit is None else limit
        for slot, amount in (*((one, 1.0) for one in asked.streams), *self._amounts(asked, rate)):
            self._taken[slot] += amount
            self._count[slot] += 1
        for slot, amount in asked.carried:
            self._waits_for[slot] -= amount * asked.wire_bytes
        self._running[job] = rate
        self._started.add(job)
        return Start(job, limit)

    # ------------------------------------------------------------- what is left

    def _fill(self, slots: list[int]) -> list[Start]:
        """Jobs that take what is left of these slots."""
        started = []
        for slot in slots if self._patience else ():
            calm, aside = self._calm.get(slot, []), []
            tries = TRIES
            while calm and tries and self._taken[slot] < self._limits[slot] * (1 - LEAST_SHARE):
                unrest, job = heapq.heappop(calm)
                if job in self._started:
                    continue
                rate = self._rate_left(job)
                if self._is_worth(job, rate):
                    started.append(self._take(job, rate))
                else:
                    aside.append((unrest, job))
                    tries -= 1
            for one in aside:
                heapq.heappush(calm, one)
        return started

    def _rate_left(self, job: int) -> float:
        asked = self._asked[job]
        if any(self._count[slot] + 1 > self._limits[slot] for slot in asked.streams):
            return 0.0
        room = ((self._limits[slot] - self._taken[slot]) / amount for slot, amount in asked.carried)
        return min(asked.most, *room)

    def _is_worth(self, job: int, rate: float) -> bool:
        asked = self._asked[job]
        if rate < LEAST_SHARE * asked.most:
            return False
        wait = max((self._waits_for[slot] / self._limits[slot] for slot, _ in asked.carried), default=0.0)
        return asked.seconds_at(rate) <= self._patience * wait < math.inf
