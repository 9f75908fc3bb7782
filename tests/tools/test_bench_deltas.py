"""The table of migrations with deltas and without."""

from __future__ import annotations

from typing import Any

from tools.bench.deltas import tables


def row(total_ms: float, *, status: str = "completed", based: int = 0) -> dict[str, Any]:
    delta = {"based_bytes": based, "saved_bytes": 3 * based, "based_pages": 60, "missed_pages": 40}
    return {
        "status": status,
        "total_ms": total_ms,
        "rounds": 5,
        "wire_bytes": 9e7,
        "cpu_seconds": 2.0,
        "delta": {**delta, "stopped": None, "memory_bytes": 5_000_000},
    }


def test_one_row_a_guest_and_one_line_a_way_of_qemu() -> None:
    document = {
        "links": {"database": "100M"},
        "rows": {
            "database|0": [row(17_000, status="not-converged")],
            "database|auto": [row(8_500, based=1000)],
        },
        "qemu": {
            "QEMU xbzrle over 50 Mbit/s": [None],
            "QEMU xbzrle over 200 Mbit/s": [{"total_ms": 20_000, "transferred_bytes": 4e8, "rounds": 6}],
        },
    }
    text = tables(document)
    cells = [cell.strip() for cell in text.splitlines()[2].split("|")]
    assert cells[1:6] == ["database", "100M/s", "4.0 x", "60%", "does not converge / 8.50"]
    assert "- QEMU xbzrle over 50 Mbit/s: does not converge in 180 s (1 of 1 runs)" in text
    assert "- QEMU xbzrle over 200 Mbit/s: 20.00 s, 400 MB, 6 rounds" in text
