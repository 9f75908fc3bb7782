"""A row for several repetitions of one run, in the columns of every table of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.report.columns import MEASURED
from tools.measuring.spread import Spread

TITLES = [column.title for column in MEASURED]


def spread_of(results: Sequence[dict[str, Any]], group: str, key: str) -> Spread:
    """A figure of the result documents; what a run does not have counts as 0."""
    return Spread(tuple(float(result[group][key] or 0.0) for result in results))


def cells(results: Sequence[dict[str, Any]]) -> list[str]:
    """A cell for each of `TITLES`: medians, the first (total ms) with its minimum and maximum."""
    total, *others = MEASURED
    medians = [
        f"{spread_of(results, column.group, column.key).median:.{column.digits}f}" for column in others
    ]
    return [spread_of(results, total.group, total.key).show(total.digits), *medians]


def cpu_seconds(results: Sequence[dict[str, Any]]) -> Spread:
    """CPU seconds of both sides."""
    return Spread(tuple(result["send"]["cpu_seconds"] + result["recv"]["cpu_seconds"] for result in results))
