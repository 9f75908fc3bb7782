"""Rows by name: `TABLE/CHANNELS/METHOD`, of the thread of QEMU's QATzip series."""

from __future__ import annotations

from pipeline.errors import UsageError
from tools.compare.published import TABLES, PublishedRow, PublishedTable

NAMES = ("bytedance", "intel-1G", "intel-10G", "intel-1250M")
"""Of the tables, in their order."""


def tables() -> dict[str, PublishedTable]:
    """By name."""
    return dict(zip(NAMES, TABLES, strict=True))


def row_name(table: str, row: PublishedRow) -> str:
    """As a profile writes it."""
    return f"{table}/{row.channels}/{row.method}"


def row_named(name: str) -> PublishedRow:
    """Raises UsageError."""
    for table, published in tables().items():
        for row in published.rows:
            if row_name(table, row) == name:
                return row
    raise UsageError(f"calibration: no published row is called {name}; such as bytedance/8/zstd")


def wire_bytes(row: PublishedRow) -> float:
    """What crossed the wire: QEMU's throughput is of the total time."""
    return row.total_ms * row.throughput_mbps * 1e3 / 8


def ns_per_byte(cpu_percent: float, row: PublishedRow, normal_bytes: float) -> float:
    """CPU nanoseconds a byte of normal pages."""
    return cpu_percent / 100 * row.total_ms * 1e6 / normal_bytes
