"""What later rounds take where of pages that come back only what changed goes."""

from __future__ import annotations

from dataclasses import replace

from pipeline.forecast.rounds import Cost
from pipeline.source.keeping import FILL_CHANGED, LEAST_SAVED

KEEP_NS, COMPARE_NS = 0.4, 1.2
"""CPU a byte of keeping a page, and of comparing it and packing what changed (numpy, an AMD EPYC)."""

HOT_COVERAGE, FILLED_COVERAGE, MOST_COVERAGE = 0.5, 1.15, 0.95
"""Of pages that come back, how many have a kept version: where only hot ones are kept; where all of the
budget is filled, times its share of RAM (2 GiB of preset database with a budget of 1 GiB: 61 %)."""


def with_deltas(
    whole: Cost, written: Cost, share: float, normal_bytes: float, budget_bytes: int
) -> tuple[Cost, Cost]:
    """The costs of round 1 and of later ones with so much memory for kept versions."""
    if not budget_bytes or share > 1 - LEAST_SAVED or normal_bytes <= 0:
        return whole, written
    kept = min(1.0, budget_bytes / normal_bytes)
    coverage = min(MOST_COVERAGE, FILLED_COVERAGE * kept) if share <= FILL_CHANGED else HOT_COVERAGE * kept
    left = 1 - coverage * (1 - share)
    return (
        replace(whole, send_ns=whole.send_ns + KEEP_NS * kept),
        replace(
            written,
            send_ns=written.send_ns * left + COMPARE_NS * coverage,
            recv_ns=written.recv_ns * left + COMPARE_NS * coverage,
            wire_share=written.wire_share * left,
        ),
    )
