"""What was carried out beside what was planned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tools.evacuate.execution import Carried

NEAR = 0.2


def score_of(document: dict[str, Any], rows: Sequence[Carried]) -> dict[str, Any]:
    """`execution` of the document."""
    planned = {one["vm"]: one for one in document["migrations"]}
    found = [_row(planned[row.vm], row) for row in sorted(rows, key=lambda row: row.start_seconds)]
    moved = [one for one in found if one["status"] == "moved"]
    total = max((one["end_seconds"] for one in moved), default=0.0)
    whole = len(moved) == len(planned)
    near = sum(one["error"] is not None and abs(one["error"]) <= NEAR for one in moved)
    return {
        "total_seconds": round(total, 3),
        "planned_total_seconds": document["total_seconds"],
        "error": _error(total, document["total_seconds"]) if whole else None,
        "moved": len(moved),
        "planned": len(planned),
        "left": [one["vm"] for one in found if one["status"] != "moved"],
        "within_20_percent": near,
        "migrations": found,
    }


def _row(planned: dict[str, Any], row: Carried) -> dict[str, Any]:
    seconds = row.end_seconds - row.start_seconds
    expected = planned["end_seconds"] - planned["start_seconds"]
    return {
        "vm": row.vm,
        "from": row.source,
        "to": row.destination,
        "status": row.status,
        "why": row.why,
        "attempts": row.attempts,
        "start_seconds": round(row.start_seconds, 3),
        "end_seconds": round(row.end_seconds, 3),
        "seconds": round(seconds, 3),
        "planned_seconds": expected,
        "error": _error(seconds, expected),
        "planned_start_seconds": planned["start_seconds"],
        "planned_end_seconds": planned["end_seconds"],
        "run_ms": row.result.get("time", {}).get("total_ms"),
        "downtime_ms": row.result.get("time", {}).get("downtime_ms"),
        "planned_downtime_ms": planned["downtime_ms"],
        "wire_bytes": row.result.get("traffic", {}).get("wire_bytes"),
        "planned_wire_bytes": planned["wire_bytes"],
    }


def _error(found: float, expected: float) -> float | None:
    return round(found / expected - 1, 4) if expected else None


def score_text(score: dict[str, Any]) -> str:
    """A table."""
    head = f"Carried out in {score['total_seconds']:.1f} s, planned {score['planned_total_seconds']:.1f} s"
    if score["error"] is None:
        head = f"{score['moved']} of {score['planned']} VMs have moved, in {score['total_seconds']:.1f} s"
    else:
        head += f" ({score['error']:+.1%})"
    lines = [
        f"{head}; {score['within_20_percent']} of {score['moved']} VMs within 20 % of their time.",
        "",
        "| vm | to | planned s | took s | error | planned downtime ms | downtime ms | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in score["migrations"]:
        error = "" if one["error"] is None else f"{one['error']:+.1%}"
        downtime = "" if one["downtime_ms"] is None else f"{one['downtime_ms']:.0f}"
        state = f"{one['status']}: {one['why']}" if one["why"] else one["status"]
        lines.append(
            f"| {one['vm']} | {one['to']} | {one['planned_seconds']:.1f} | {one['seconds']:.1f} | {error} | "
            f"{one['planned_downtime_ms']:.0f} | {downtime} | {state} |"
        )
    return "\n".join(lines)
