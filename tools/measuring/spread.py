"""Spreads of repeated figures, and whether two of them differ at all.

After pyperf: raw values are kept, the median stands for them, and no winner is named inside the
noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """The repetitions of one figure, in the order of measurement."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def noise(self) -> float:
        """(max - min) / median: 0.1 is a spread of ten per cent."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0

    def overlaps(self, other: Spread) -> bool:
        """Whether the ranges of the two overlap."""
        return min(self.values) <= max(other.values) and min(other.values) <= max(self.values)

    def show(self, digits: int = 0) -> str:
        """`median (min to max)`; just the value where all are the same to that many digits."""
        low, mid, high = (
            f"{value:.{digits}f}" for value in (min(self.values), self.median, max(self.values))
        )
        return mid if low == high else f"{mid} ({low} to {high})"


@dataclass(frozen=True)
class Comparison:
    """One figure of ours beside another's."""

    ours: Spread
    theirs: Spread

    @property
    def ratio(self) -> float:
        """The ratio of the medians, ours over theirs."""
        return self.ours.median / self.theirs.median if self.theirs.median else float("inf")

    @property
    def tie(self) -> bool:
        """Whether the spreads overlap, so that the ratio says nothing."""
        return self.ours.overlaps(self.theirs)

    def show(self) -> str:
        """`1.32 x`, or that it is a tie."""
        return f"{self.ratio:.2f} x" + (" (tie)" if self.tie else "")
