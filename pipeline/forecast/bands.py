"""Many draws of one case, and the bands that they make."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from guestmem.page import PAGE_BYTES
from pipeline.forecast.beside import NOTHING_BESIDE
from pipeline.forecast.cost import Cost
from pipeline.forecast.qat_device import QatDevice
from pipeline.forecast.rounds import Case, Resources, walk
from pipeline.forecast.situation import Batches, Candidate, Guest, Host, Numbers, Plan
from pipeline.forecast.smooth_curve import smooth_curve
from pipeline.forecast.with_deltas import deltas_of

DRAWS = 100
RATIO_NOISE = 0.03
"""By how much (standard deviation, share) what a method makes of all pages differs from what it made of the
sample, beside what picking anew from the sample says: guests' RAM is not the same all over (256 MiB guests,
25 MiB/s: 4 to 7 % off where picking anew said 2)."""

FEWEST_FOR_A_LINE = 16
LOW, HIGH = 0.1, 0.9
QUANTITIES = ("total_ms", "downtime_ms", "rounds", "wire_bytes", "send_cpu_seconds", "recv_cpu_seconds")


@dataclass(frozen=True)
class Band:
    """What is expected, and the 80 % band."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True)
class Forecast:
    """Of one method with one plan. Bands are of the draws that converge, or of all where none does."""

    method: str
    level: int | None
    channels: int
    chance_to_converge: float
    bands: dict[str, Band]
    modelled: bool = False

    @property
    def name(self) -> str:
        return self.method if self.level is None else f"{self.method} {self.level}"

    @property
    def label(self) -> str:
        """With a word where the speed was not measured here."""
        return f"{self.name} (modelled)" if self.modelled else self.name

    def record(self) -> dict[str, Any]:
        """As a result document has it."""
        return {
            "method": self.method,
            "level": self.level,
            "channels": self.channels,
            "modelled": self.modelled,
            "chance_to_converge": self.chance_to_converge,
            **{name: asdict(band) for name, band in self.bands.items()},
        }


def forecast(
    guest: Guest, candidate: Candidate, host: Host, plan: Plan, seed: int = 1, draws: int = DRAWS
) -> Forecast:
    """The same for the same figures and seed."""
    chance = np.random.default_rng(seed)
    outcomes = [walk(_draw(guest, candidate, host, plan, chance)) for _ in range(draws)]
    good = [outcome for outcome in outcomes if outcome.converged]
    bands = {name: _band([float(getattr(one, name)) for one in good or outcomes]) for name in QUANTITIES}
    chance_to_converge = len(good) / len(outcomes)
    return Forecast(
        *(candidate.method, candidate.level, plan.channels, chance_to_converge, bands, candidate.modelled)
    )


def _band(values: list[float]) -> Band:
    low, middle, high = np.quantile(values, (LOW, 0.5, HIGH))
    return Band(float(middle), float(low), float(high))


def _draw(guest: Guest, candidate: Candidate, host: Host, plan: Plan, chance: np.random.Generator) -> Case:
    slowness = math.exp(chance.normal(0.0, host.noise))
    whole = _cost(candidate.whole, slowness, chance)
    written = _cost(candidate.written, slowness, chance) if len(candidate.written) else whole
    link = plan.link_bytes_per_second * max(0.1, chance.normal(1.0, plan.link_noise))
    beside = plan.beside.slower(math.exp(chance.normal(0.0, host.copy_noise)))
    if candidate.device is not None:
        whole, written = (_on(candidate.device, cost, plan, slowness) for cost in (whole, written))
        beside = NOTHING_BESIDE
    normal_bytes = guest.ram_pages * PAGE_BYTES * (1 - guest.zero_share)
    # A scheduler lets nobody starve: who wants more than is free has an equal part at least.
    cpus = max(host.cpus - guest.cpus, host.cpus * plan.channels / (plan.channels + guest.cpus))
    curve = smooth_curve(guest.curve.seconds, _counts(guest, chance), guest.ram_pages)
    zero_share = guest.zero_share
    if plan.unsettled_seconds:
        seconds = normal_bytes * whole.wire_share / link if link else 0.0
        written_since = curve.pages_after(plan.unsettled_seconds + seconds / 2) / guest.ram_pages
        whole = whole.mixed_with(written, written_since)
        zero_share += (guest.written_zero_share - zero_share) * written_since
    resources = Resources(
        *(plan.channels, plan.receivers, cpus, host.recv_cpus, cpus if host.one_host else 0.0, link),
        plan.qemu_limit_bytes_per_second,
    )
    return Case(
        guest.ram_pages,
        zero_share,
        guest.written_zero_share,
        curve,
        whole,
        written,
        resources,
        guest.sync_ms,
        plan.policy,
        beside,
        guest.activity,
        chance.uniform(0.0, guest.activity.seconds),
        deltas_of(guest.changes, normal_bytes, plan.delta_bytes),
    )


def _on(device: QatDevice, cost: Cost, plan: Plan, slowness: float) -> Cost:
    """The bytes of a cost at the speed of a device at either end; the destination's RAM has its pages."""
    load = device.load(plan.channels, plan.receivers, prealloc=True)
    return Cost(
        *(load.send_ns * slowness, load.recv_ns * slowness, cost.wire_share),
        *(load.send_wait_ns * slowness, load.recv_wait_ns * slowness),
    )


def _cost(batches: Batches, slowness: float, chance: np.random.Generator) -> Cost:
    """Of batches picked anew."""
    if not len(batches):
        return Cost(0.0, 0.0, 1.0)
    picked = chance.integers(0, len(batches), len(batches))
    share = _a_byte(batches, batches.payload_bytes, picked)
    if share < 1:  # compressed at all
        share *= math.exp(chance.normal(0.0, RATIO_NOISE))
    return Cost(
        _a_byte(batches, batches.compress_ns, picked) * slowness,
        _a_byte(batches, batches.decompress_ns, picked) * slowness,
        min(1.0, share),
    )


def _a_byte(batches: Batches, figures: Numbers, picked: npt.NDArray[np.int64]) -> float:
    """Of the picked ones; where a quick method looked at far more, as a straight line through its shares says
    for all of these (the regression estimator of Cochran, Sampling Techniques, 1977, chapter 7)."""
    plain = batches.plain_bytes
    found = float(figures[picked].sum() / plain[picked].sum())
    if len(batches.gauge) < FEWEST_FOR_A_LINE:
        return found
    off = batches.gauge - np.average(batches.gauge, weights=plain)
    spread = float((off**2).sum())
    slope = float((off * (figures / plain)).sum()) / spread if spread else 0.0
    seen = float(np.average(batches.gauge[picked], weights=plain[picked]))
    return max(found / 2, found + slope * (batches.gauge_share - seen))


def _counts(guest: Guest, chance: np.random.Generator) -> tuple[float, ...]:
    """Each point of the curve the mean of its samples, picked anew. A curve never falls: where it seems to,
    the points have their mean (pooling adjacent violators, Barlow et al. 1972)."""
    pools: list[tuple[float, int]] = []
    for samples in guest.curve.pages:
        mean, count = float(chance.choice(samples, len(samples)).mean()), 1
        while pools and pools[-1][0] > mean:
            before, many = pools.pop()
            mean, count = (mean * count + before * many) / (count + many), count + many
        pools.append((mean, count))
    return tuple(mean for mean, count in pools for _ in range(count))


def best(found: list[Forecast]) -> Forecast:
    """Which to take: what most surely converges, and of those the shortest."""
    sure = max(one.chance_to_converge for one in found)
    return min(
        (one for one in found if one.chance_to_converge >= sure - 0.05),
        key=lambda one: one.bands["total_ms"].expected,
    )
