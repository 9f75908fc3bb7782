"""A look at a guest of ours, before its migration: how it writes, and what its pages hold."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from guestmem.dirty_log.contract import DirtyLog
from guestmem.ram import GuestRam, PageNumbers
from pipeline.forecast.activity import Step, activity_of
from pipeline.forecast.sample import MOST_BATCHES, NO_PAGES, PACKET_PAGES, Words, gauge_share, normal_pages
from pipeline.forecast.situation import CurveSamples, Guest
from pipeline.processes.cgroup import usable_cpus
from pipeline.processes.usage import cpu_seconds_of
from pipeline.source.returning import Returning

POINTS_SECONDS = (0.125, 0.25, 0.5, 1.0, 2.0)
PASSES = (5, 4, 3, 3, 2, 2)
"""How many of the points each pass goes to: 4.5 s in all, six samples of the shortest."""

RETURNING_AFTER = 4
"""Passes before pages are sampled that may come back: half a second before the end, about what a late round
takes. The longer the time the more of a page changes."""

ZERO_SAMPLE_PAGES = 1 << 18
"""Looked at for zero pages: 1 GiB, some 0.1 s."""

GAUGED_PACKETS = 1024
"""Of all of RAM, by the quick method: 512 MiB, some 0.3 s on two CPUs."""

SEED = 1


@dataclass(frozen=True)
class Watched:
    """The guest's figures, and normal pages of all of it and of what it wrote, in packets' worth of pages
    that lay side by side. `gauge` is what the quick method makes of far more pages than `whole`;
    `took_seconds` is what the look took."""

    guest: Guest
    whole: Words
    written: Words
    gauge: float
    took_seconds: float


def look(ram: GuestRam, log: DirtyLog, pid: int, rest: Callable[[float], None]) -> Watched:
    """Watch a guest whose log is open for 4.5 s; `rest` waits. What it wrote before is not fetched any more:
    a migration has to send all of RAM after this. Raises what `rest` raises."""
    began = time.monotonic()
    scratch = np.zeros(ram.pages, np.uint32)
    samples: dict[float, list[int]] = {}
    written: list[PageNumbers] = []
    syncs: list[float] = []
    steps: list[Step] = []
    returning: Returning | None = None
    cpu_before, watched_at = _cpu_seconds(pid), time.monotonic()
    for points in PASSES:
        at = time.monotonic()
        count = log.sync(scratch)
        syncs.append((time.monotonic() - at) * 1e3)
        if samples:
            written.append(scratch[:count].copy())
            if len(written) == RETURNING_AFTER:
                returning = Returning(ram, written[-1])
        cleared = last = time.monotonic()
        before = 0
        for index, point in enumerate(POINTS_SECONDS[:points]):
            rest(max(0.0, cleared + point - time.monotonic()))
            now, pages = time.monotonic(), log.count()
            samples.setdefault(point, []).append(pages)
            steps.append(Step(last - watched_at, now - watched_at, index, pages - before))
            last, before = now, pages
    written.append(scratch[: log.sync(scratch)].copy())
    cpus = (_cpu_seconds(pid) - cpu_before) / (time.monotonic() - watched_at)
    chance = np.random.default_rng(SEED)
    whole, zero_share = _whole(ram, chance)
    dirty, written_zero_share = _written(ram, written, chance)
    curve = CurveSamples(POINTS_SECONDS, tuple(tuple(samples[at]) for at in POINTS_SECONDS))
    assert returning is not None, "there are more passes than that"
    delta_share = returning.share(ram, np.concatenate(written[RETURNING_AFTER:]))
    guest = Guest(
        *(ram.pages, zero_share, written_zero_share, curve, float(np.median(syncs))),
        *(min(1.0, max(0.0, cpus)), activity_of(steps)),
        1.0 if delta_share is None else delta_share,
    )
    return Watched(guest, whole, dirty, _gauge(ram), time.monotonic() - began)


def _cpu_seconds(pid: int) -> float:
    try:
        return cpu_seconds_of(pid)
    except OSError:
        return 0.0


def _whole(ram: GuestRam, chance: np.random.Generator) -> tuple[Words, float]:
    """Packets from places all over RAM, as round 1 makes them, and the share of zero pages."""
    step = max(1, ram.pages // ZERO_SAMPLE_PAGES)
    _, zero_share = normal_pages(ram.words[::step])
    found, have = [], 0
    for first in _places(ram.pages, chance):
        pages, _ = normal_pages(ram.words[first : first + PACKET_PAGES])
        found.append(pages)
        have += len(pages)
        if have >= MOST_BATCHES * PACKET_PAGES:
            break
    return (np.concatenate(found) if found else NO_PAGES), zero_share


def _gauge(ram: GuestRam) -> float:
    """Over packets all over RAM, all of it where it is small."""
    packets = max(1, ram.pages // PACKET_PAGES)
    picked = np.unique(np.linspace(0, packets - 1, min(packets, GAUGED_PACKETS)).astype(np.int64))

    def read(packet: int) -> Words:
        return normal_pages(ram.words[packet * PACKET_PAGES : (packet + 1) * PACKET_PAGES])[0]

    return gauge_share(read, picked.tolist(), max(1, min(2, int(usable_cpus()))))


def _places(pages: int, chance: np.random.Generator) -> list[int]:
    """First pages of packets: one of each stretch of RAM, so that no part is missed; in any order."""
    packets = max(1, pages // PACKET_PAGES)
    stretches = min(packets, 2 * MOST_BATCHES)
    edges = np.linspace(0, packets, stretches + 1).astype(np.int64)
    picked = [int(chance.integers(low, max(low + 1, high))) for low, high in pairwise(edges.tolist())]
    chance.shuffle(picked)
    return [packet * PACKET_PAGES for packet in picked]


def _written(ram: GuestRam, written: list[PageNumbers], chance: np.random.Generator) -> tuple[Words, float]:
    """Packets of pages that were dirty together, as later rounds make them, and the share of zero pages."""
    found, zeros, looked = [], 0.0, 0
    full = [numbers for numbers in written if len(numbers)]
    for _ in range(MOST_BATCHES if full else 0):
        numbers = full[int(chance.integers(len(full)))]
        first = int(chance.integers(max(1, len(numbers) - PACKET_PAGES + 1)))
        pages, zero_share = normal_pages(ram.words[numbers[first : first + PACKET_PAGES]])
        taken = min(PACKET_PAGES, len(numbers))
        zeros, looked = zeros + zero_share * taken, looked + taken
        found.append(pages)
    return (np.concatenate(found) if found else NO_PAGES), (zeros / looked if looked else 0.0)
