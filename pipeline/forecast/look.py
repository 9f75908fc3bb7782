"""A look at a guest of ours, before its migration: how it writes, and what its pages hold."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np

from guestmem.dirty_log.contract import DirtyLog
from guestmem.ram import GuestRam, PageNumbers
from guestmem.zero import normal_mask
from pipeline.forecast.activity import Step, activity_of
from pipeline.forecast.cost import Changes
from pipeline.forecast.packet_size import PACKET_PAGES
from pipeline.forecast.sample import (
    MOST_BATCHES,
    NO_PAGES,
    Gauges,
    Words,
    gauge_share,
    normal_pages,
)
from pipeline.forecast.situation import CurveSamples, Guest
from pipeline.processes.cgroup import usable_cpus
from pipeline.processes.usage import cpu_seconds_of
from pipeline.source.returning import Returning

POINTS_SECONDS = (0.125, 0.25, 0.5, 1.0, 2.0)
PASSES = (5, 3, 3, 2, 2)
"""How many of the points each pass goes to: 3.5 s in all, five samples of the shortest."""

ZERO_SAMPLE_PAGES = 1 << 18
"""Looked at for zero pages: 1 GiB, some 0.1 s."""

GAUGED_PACKETS = 256
"""By the quick method, of all of RAM and of what was written: 128 MiB, some 0.2 s on two CPUs."""

SEED = 1


@dataclass(frozen=True)
class Watched:
    """The guest's figures, and normal pages of all of it and of what it wrote, in packets' worth of pages
    that lay side by side. `took_seconds` is what the look took."""

    guest: Guest
    whole: Words
    written: Words
    gauges: Gauges
    took_seconds: float


def look(ram: GuestRam, log: DirtyLog, pid: int, rest: Callable[[float], None]) -> Watched:
    """Watch a guest whose log is open for 3.5 s; `rest` waits. What it wrote before is not fetched any more:
    a migration has to send all of RAM after this. Raises what `rest` raises."""
    began = time.monotonic()
    scratch = np.zeros(ram.pages, np.uint32)
    samples: list[list[int]] = [[] for _ in POINTS_SECONDS]
    spans: list[list[float]] = [[] for _ in POINTS_SECONDS]
    written: list[PageNumbers] = []
    syncs: list[float] = []
    steps: list[Step] = []
    coming_back = _ComingBack(ram)
    cpu_before, watched_at = _cpu_seconds(pid), time.monotonic()
    for points in PASSES:
        at = time.monotonic()
        count = log.sync(scratch)
        ended = time.monotonic()
        syncs.append((ended - at) * 1e3)
        cleared = last = (at + ended) / 2
        if samples[0]:
            written.append(scratch[:count].copy())
            coming_back.note(written[-1], at)
            coming_back.sample(written[-1], cleared)
        before = 0
        for index, point in enumerate(POINTS_SECONDS[:points]):
            rest(max(0.0, cleared + point - time.monotonic()))
            asked, pages = time.monotonic(), log.count()
            now = (asked + time.monotonic()) / 2
            samples[index].append(pages)
            spans[index].append(now - cleared)
            steps.append(Step(last - watched_at, now - watched_at, index, pages - before))
            last, before = now, pages
    written.append(scratch[: log.sync(scratch)].copy())
    coming_back.note(written[-1], time.monotonic())
    cpus = (_cpu_seconds(pid) - cpu_before) / (time.monotonic() - watched_at)
    chance = np.random.default_rng(SEED)
    whole, zero_share = _whole(ram, chance)
    dirty, written_zero_share = _written(ram, written, chance)
    curve = CurveSamples(tuple(fmean(one) for one in spans), tuple(tuple(one) for one in samples))
    guest = Guest(
        *(ram.pages, zero_share, written_zero_share, curve, float(np.median(syncs))),
        *(min(1.0, max(0.0, cpus)), activity_of(steps)),
        coming_back.changes(),
    )
    gauges = Gauges(_gauge(ram), _gauge_written(ram, written))
    return Watched(guest, whole, dirty, gauges, time.monotonic() - began)


class _ComingBack:
    """How much of pages that are written again has changed, by the time since they were sampled."""

    def __init__(self, ram: GuestRam) -> None:
        self._ram = ram
        self._sampled: Returning | None = None
        self._sampled_at = 0.0
        self._shares: dict[float, list[float]] = {}

    def sample(self, written: PageNumbers, at: float) -> None:
        """These were written just now."""
        self._sampled, self._sampled_at = Returning(self._ram, written), at

    def note(self, written: PageNumbers, at: float) -> None:
        """These were written since, until now."""
        share = None if self._sampled is None else self._sampled.share(self._ram, written)
        if share is not None:
            self._shares.setdefault(round(at - self._sampled_at, 1), []).append(share)

    def changes(self) -> Changes:
        times = sorted(self._shares)
        return Changes(tuple(times), tuple(fmean(self._shares[at]) for at in times))


def _cpu_seconds(pid: int) -> float:
    try:
        return cpu_seconds_of(pid)
    except OSError:
        return 0.0


def _whole(ram: GuestRam, chance: np.random.Generator) -> tuple[Words, float]:
    """Packets from places all over RAM, as round 1 makes them, and the share of zero pages."""
    step = max(1, ram.pages // ZERO_SAMPLE_PAGES)
    zero_share = float(1 - normal_mask(ram.words[::step]).mean())
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
    return _gauged(
        max(1, ram.pages // PACKET_PAGES),
        lambda packet: ram.words[packet * PACKET_PAGES : (packet + 1) * PACKET_PAGES],
    )


def _gauge_written(ram: GuestRam, written: list[PageNumbers]) -> float | None:
    """Over all that it wrote, or packets all over it; None where that is hardly more than was sampled."""
    numbers = np.unique(np.concatenate(written))
    packets = len(numbers) // PACKET_PAGES
    if packets <= MOST_BATCHES // 2:
        return None
    return _gauged(
        packets, lambda packet: ram.words[numbers[packet * PACKET_PAGES : (packet + 1) * PACKET_PAGES]]
    )


def _gauged(packets: int, pages_of: Callable[[int], Words]) -> float:
    """Of so many packets, evenly picked."""
    picked = np.unique(np.linspace(0, packets - 1, min(packets, GAUGED_PACKETS)).astype(np.int64))
    threads = max(1, min(2, int(usable_cpus())))
    return gauge_share(lambda packet: normal_pages(pages_of(packet))[0], picked.tolist(), threads)


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
