"""What deltas do where there is so much memory for kept versions."""

from __future__ import annotations

from pipeline.forecast.cost import Changes, Deltas
from pipeline.source.keeping import FILL_CHANGED, LEAST_SAVED, LOOK_SECONDS

HOT_COVERAGE, FILLED_COVERAGE, MOST_COVERAGE = 0.5, 1.25, 0.95
"""Of pages that come back, how many have a kept version: where only hot ones are kept; where all of the
budget is filled, times its share of RAM (preset database, half of RAM: 58 % in round 2, 72 % in round 4)."""


def deltas_of(changes: Changes, normal_bytes: float, budget_bytes: int) -> Deltas | None:
    """None where none are made: without a budget, or where too much of a page changes."""
    share = changes.after(LOOK_SECONDS)
    if not budget_bytes or share > 1 - LEAST_SAVED or normal_bytes <= 0:
        return None
    kept = min(1.0, budget_bytes / normal_bytes)
    coverage = min(MOST_COVERAGE, FILLED_COVERAGE * kept) if share <= FILL_CHANGED else HOT_COVERAGE * kept
    return Deltas(changes, coverage, kept)
