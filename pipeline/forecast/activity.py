"""How a guest's writing comes and goes: what it did in each part of a look, as a share of its mean."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SLICE_SECONDS = 0.125
FEWEST_PAGES = 8
"""A step that adds fewer on average says nothing of bursts."""


@dataclass(frozen=True)
class Step:
    """From one count to the next: when, since the look began, how many more pages were dirty, and which step
    since its sync it was, since later ones add fewer pages."""

    begun: float
    ended: float
    index: int
    pages: int


class Activity:
    """Goes round and round; 1.0 is the mean. Without slices it is always that."""

    def __init__(self, slices: Sequence[float] = ()) -> None:
        self._sums = np.concatenate([[0.0], np.cumsum(slices)])
        self._slices = len(slices)

    @property
    def seconds(self) -> float:
        """Until it goes round."""
        return self._slices * SLICE_SECONDS

    def mean(self, begun: float, seconds: float) -> float:
        """From `begun` on, for so long."""
        if not self._slices or seconds <= 0:
            return 1.0
        first, last = begun / SLICE_SECONDS, (begun + seconds) / SLICE_SECONDS
        return float((self._sum(last) - self._sum(first)) / (last - first))

    def _sum(self, position: float) -> float:
        rounds, rest = divmod(position, self._slices)
        within = float(np.interp(rest, np.arange(self._slices + 1), self._sums))
        return float(rounds * self._sums[-1] + within)


def activity_of(steps: Sequence[Step]) -> Activity:
    """Each step beside the mean of its kind."""
    kinds: dict[int, list[Step]] = defaultdict(list)
    for step in steps:
        kinds[step.index].append(step)
    if not steps:
        return Activity()
    count = max(1, round(max(step.ended for step in steps) / SLICE_SECONDS))
    found = np.full(count, np.nan)
    for kind in kinds.values():
        mean = float(np.mean([step.pages for step in kind]))
        for step in kind if mean >= FEWEST_PAGES else ():
            first, last = round(step.begun / SLICE_SECONDS), round(step.ended / SLICE_SECONDS)
            found[first : max(first + 1, last)] = step.pages / mean
    known = ~np.isnan(found)
    if not known.any() or not np.nansum(found):
        return Activity()
    filled = np.interp(np.arange(count), np.flatnonzero(known), found[known])
    return Activity((filled / filled.mean()).tolist())
