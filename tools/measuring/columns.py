"""The columns of a table of runs: QEMU's, then what only several runs together have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tools.measuring.spread import Spread

COLUMNS = (
    ("total ms", "time", "total_ms", 0),
    ("downtime ms", "time", "downtime_ms", 1),
    ("throughput mbps", "traffic", "throughput_mbps", 0),
    ("pages/s", "traffic", "pages_per_second_mean", 0),
    ("send CPU %", "send", "cpu_percent", 0),
    ("recv CPU %", "recv", "cpu_percent", 0),
    ("ratio", "traffic", "compression_ratio", 2),
)
"""(title, group and key in the result, digits)."""

TITLES = [title for title, *_ in COLUMNS]


def spread_of(results: Sequence[dict[str, Any]], group: str, key: str) -> Spread:
    """A figure of the result documents; what a run does not have counts as 0."""
    return Spread(tuple(float(result[group][key] or 0.0) for result in results))


def cells(results: Sequence[dict[str, Any]]) -> list[str]:
    """A cell for each of `TITLES`: medians, the total with its minimum and maximum."""
    return [
        spread.show(digits) if key == "total_ms" else f"{spread.median:.{digits}f}"
        for spread, key, digits in (
            (spread_of(results, group, key), key, digits) for _, group, key, digits in COLUMNS
        )
    ]


def cpu_seconds(results: Sequence[dict[str, Any]]) -> Spread:
    """CPU of both sides."""
    return Spread(tuple(result["send"]["cpu_seconds"] + result["recv"]["cpu_seconds"] for result in results))
