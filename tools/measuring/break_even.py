"""Break-even bandwidths: where two methods take the same time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, pairwise

Lines = dict[str, list[tuple[int, float]]]
"""(bandwidth in bytes per second, total ms) of each method; a bandwidth of 0 is no limit."""

ROUNDING = 1 + 1e-9


@dataclass(frozen=True)
class Crossing:
    """The bandwidth (bytes per second) at which two methods take the same time."""

    below: str
    above: str
    bandwidth_bytes: float
    total_ms: float

    @property
    def words(self) -> str:
        return (
            f"below about {self.bandwidth_bytes / 1e6:.0f} MB/s {self.below} is faster than "
            f"{self.above}, above it the other way round"
        )


def crossings(lines: Lines) -> list[Crossing]:
    """Where any two lines cross, by interpolating both logarithms."""
    found = []
    for one, other in combinations(lines, 2):
        a, b = dict(lines[one]), dict(lines[other])
        shared = sorted(x for x in a.keys() & b.keys() if x)
        for left, right in pairwise(shared):
            before, after = math.log(a[left] / b[left]), math.log(a[right] / b[right])
            if before * after < 0:
                share = before / (before - after)
                at = left * (right / left) ** share
                faster, slower = (one, other) if before < 0 else (other, one)
                found.append(Crossing(faster, slower, at, a[left] * (a[right] / a[left]) ** share))
    return sorted(found, key=lambda crossing: crossing.bandwidth_bytes)


def break_evens(lines: Lines) -> list[Crossing]:
    """The crossings at which the fastest method changes: no third method is faster there."""

    def fastest(one: Crossing) -> bool:
        times = (_interpolated(line, one.bandwidth_bytes) for line in lines.values())
        return all(time is None or one.total_ms <= time * ROUNDING for time in times)

    return [one for one in crossings(lines) if fastest(one)]


def _interpolated(line: list[tuple[int, float]], bandwidth_bytes: float) -> float | None:
    limited = sorted(point for point in line if point[0])
    for (left, before), (right, after) in pairwise(limited):
        if left <= bandwidth_bytes <= right:
            share = math.log(bandwidth_bytes / left) / math.log(right / left)
            return math.exp(math.log(before) + share * math.log(after / before))
    return None
