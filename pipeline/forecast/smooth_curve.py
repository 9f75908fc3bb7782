"""A dirty curve through a few points: it bends between them, and goes on bending behind the last.

A guest that writes pages at random dirties fewer new ones the longer it does so: what it adds a second falls
exponentially (of P pages, P (1 - exp(-t r / P)) after t seconds at r writes a second). A straight line from
2 s on was 15 % too high after 3.8 s, and a guest near the edge of convergence multiplies that.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pipeline.dirty_curve import DirtyCurve

BETWEEN = 4
"""Parts of the way from one point to the next."""

BEHIND = (0.125, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16)
"""Behind the last point, in its own time."""

Numbers = npt.NDArray[np.float64]


def smooth_curve(seconds: tuple[float, ...], pages: tuple[float, ...], ram_pages: int) -> DirtyCurve:
    """Through these points; `seconds` ascend from above 0, `pages` do not fall."""
    times, counts = np.array([0.0, *seconds]), np.array([0.0, *pages])
    paces = np.diff(counts) / np.diff(times)
    if len(paces) < 2 or paces.min() <= 0:
        return DirtyCurve(seconds, tuple(round(count) for count in pages), ram_pages)
    middles = (times[1:] + times[:-1]) / 2
    found: list[tuple[float, float]] = []
    for (begun, low), (ended, high) in pairwise(zip(times, counts, strict=True)):
        grid = np.linspace(begun, ended, BETWEEN + 1)
        added = _added(grid, middles, paces)
        through = low + (high - low) * added / added[-1]
        found += zip(grid[1:].tolist(), through[1:].tolist(), strict=True)
    last, decay = seconds[-1], _decay_behind(middles, paces)
    pace = float(paces[-1]) * math.exp(-decay * (last - float(middles[-1])))
    for share in BEHIND:
        more = last * share
        found.append((last + more, pages[-1] + pace * _ramp(decay, more)))
    return DirtyCurve(
        tuple(at for at, _ in found), tuple(min(ram_pages, round(count)) for _, count in found), ram_pages
    )


def _added(grid: Numbers, middles: Numbers, paces: Numbers) -> Numbers:
    """From the first of the grid on, at a pace whose logarithm is a straight line between middles."""
    pace = np.exp(np.interp(grid, middles, np.log(paces)))
    steps = (pace[1:] + pace[:-1]) / 2 * np.diff(grid)
    return np.concatenate([[0.0], np.cumsum(steps)])


def _decay_behind(middles: Numbers, paces: Numbers) -> float:
    """By how much the logarithm of the pace falls in a second, behind the last point. Where hot pages were
    all written before, it falls less and less; as fast as that goes on."""
    decays = np.maximum(0.0, -np.diff(np.log(paces)) / np.diff(middles))
    last = float(decays[-1])
    if len(decays) < 2 or not decays[-2]:
        return last
    return last * min(1.0, last / float(decays[-2]))


def _ramp(decay: float, seconds: float) -> float:
    """The integral of exp(-decay t)."""
    return seconds if decay * seconds < 1e-6 else (1 - math.exp(-decay * seconds)) / decay
