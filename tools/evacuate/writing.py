"""A VM's dirty curve: as the plan gives it, or what is expected of a preset or of a rate, by formula."""

from __future__ import annotations

import functools

import numpy as np

from guestmem.page import PAGE_BYTES
from guestmem.patterns import UNIFORM, Pattern
from guestmem.workload import PRESETS, Phase
from pipeline.dirty_curve import DirtyCurve
from tools.evacuate.plan_file import Vm

POINTS_SECONDS = tuple(0.125 * 2**power for power in range(14))
"""0.125 s to 17 minutes."""

ZIPF_BINS = 400


def curve_of(vm: Vm) -> DirtyCurve:
    """What a round of so many seconds leaves dirty."""
    if vm.curve is not None:
        seconds, sizes = zip(*vm.curve, strict=True)
        return DirtyCurve(seconds, tuple(min(vm.pages, size // PAGE_BYTES) for size in sizes), vm.pages)
    if vm.preset is not None:
        return _preset(vm.preset, vm.pages)
    return _rate(vm.dirty_rate, max(1, vm.working_set_bytes // PAGE_BYTES), vm.pages)


@functools.lru_cache(4096)
def _rate(bytes_per_second: int, set_pages: int, pages: int) -> DirtyCurve:
    phase = Phase(bytes_per_second, UNIFORM)
    found = tuple(round(_distinct(phase, set_pages, seconds)) for seconds in POINTS_SECONDS)
    return DirtyCurve(POINTS_SECONDS, found, pages)


@functools.lru_cache(4096)
def _preset(name: str, pages: int) -> DirtyCurve:
    phases = PRESETS[name][1].phases
    found: list[int] = []
    for seconds in POINTS_SECONDS:
        found.append(max(round(_together(phases, pages, seconds)), found[-1] if found else 0))
    return DirtyCurve(POINTS_SECONDS, tuple(found), pages)


def _together(phases: tuple[Phase, ...], pages: int, seconds: float) -> float:
    """Of a window anywhere in the phases: one of them where it is short, all of them where it is long."""
    cycle = sum(phase.seconds for phase in phases)
    if not cycle:
        return _distinct(phases[0], pages, seconds)
    shares = [phase.seconds / cycle for phase in phases]
    one = sum(share * _distinct(phase, pages, seconds) for phase, share in zip(phases, shares, strict=True))
    if seconds < cycle:
        return one
    untouched = 1.0
    for phase, share in zip(phases, shares, strict=True):
        untouched *= 1 - _distinct(phase, pages, seconds * share) / pages
    return max(one, pages * (1 - untouched))


def _distinct(phase: Phase, pages: int, seconds: float) -> float:
    """Pages that are expected to be written in so long."""
    writes = phase.rate_bytes_per_second * seconds / phase.write_bytes
    pattern = phase.pattern
    if pattern.name == "sequential":
        return min(pages, writes)
    if pattern.name == "hotspot":
        share, fraction = pattern.parameters
        hot = max(1, int(pages * fraction))
        cold = pages - hot
        rest = _uniform(writes * (1 - share), cold) if cold else 0.0
        return _uniform(writes * (share if cold else 1), hot) + rest
    return _zipf(pattern, pages, writes) if pattern.name == "zipf" else _uniform(writes, pages)


def _uniform(writes: float, pages: int) -> float:
    return float(pages * -np.expm1(-writes / pages))


def _zipf(pattern: Pattern, pages: int, writes: float) -> float:
    """By ranks in bins that grow: the distribution that `guestmem.patterns` draws from."""
    power = 1 - pattern.parameters[0]
    edges = np.unique(np.round(np.geomspace(1, pages + 1, ZIPF_BINS)))
    total = np.log(edges) if abs(power) < 1e-9 else (edges**power - 1) / power
    share, width = np.diff(total) / total[-1], np.diff(edges)
    return float((width * -np.expm1(-writes * share / width)).sum())
