"""A forecast beside what came true: in one result, and over many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

from pipeline.forecast.bands import QUANTITIES

Result = dict[str, Any]

SCORED = ("completed", "not-converged")
"""Statuses of results. A run that was cancelled, or failed, says nothing of a forecast."""

NAMES = {
    "total_ms": "total ms",
    "downtime_ms": "downtime ms",
    "rounds": "rounds",
    "wire_bytes": "wire bytes",
    "send_cpu_seconds": "send CPU s",
    "recv_cpu_seconds": "recv CPU s",
}


def came_true(result: Result) -> dict[str, float | None]:
    """What a result document says of each quantity; None for what was not measured. A relay's says what
    QEMU says, and what both relays used."""
    if "streams" in result:
        return _of_relay(result)
    return {
        "total_ms": result["time"]["total_ms"],
        "downtime_ms": result["time"]["downtime_ms"],
        "rounds": float(len(result["rounds"])) if result["rounds"] else None,
        "wire_bytes": result["traffic"]["wire_bytes"],
        "send_cpu_seconds": result["send"]["cpu_seconds"],
        "recv_cpu_seconds": result["recv"]["cpu_seconds"],
    }


def _of_relay(result: Result) -> dict[str, float | None]:
    qemu, other = result["qemu"] or {}, result["other_relay"] or {}
    blackout = result["blackout_ms"]
    return {
        "total_ms": qemu.get("total_ms"),
        "downtime_ms": qemu.get("downtime_ms") if blackout is None else blackout,
        "rounds": qemu.get("rounds"),
        "wire_bytes": result["traffic"]["wire_bytes"],
        "send_cpu_seconds": result["cpu"]["seconds"],
        "recv_cpu_seconds": (other.get("cpu") or {}).get("seconds"),
    }


def scored(result: Result) -> dict[str, Any]:
    """The `score` of a result that has a `forecast`: by quantity what came true, the error as a share of it,
    and whether it lay in the band; whether it converged."""
    predicted, real = result["forecast"], came_true(result)
    converged = result["status"] == "completed"
    found: dict[str, Any] = {"converged": converged, "chance_to_converge": predicted["chance_to_converge"]}
    for name in QUANTITIES if converged else ():
        value = real[name]
        if value is None:
            continue
        band = predicted[name]
        found[name] = {
            "came_true": value,
            "error": (band["expected"] - value) / value if value else None,
            "in_band": band["low"] <= value <= band["high"],
        }
    return found


@dataclass(frozen=True)
class Errors:
    """Of one quantity over many results: shares of the truth, and how often it lay in the 80 % band."""

    runs: int
    median_error: float
    worst_error: float
    close: int
    """Within 15 %; a downtime within 30 ms or 25 %."""
    in_band: int


def _is_close(name: str, row: dict[str, Any]) -> bool:
    error, real = abs(float(row["error"])), float(row["came_true"])
    if name == "downtime_ms":
        return error <= 0.25 or error * real <= 30
    return error <= 0.15


def errors_of(results: Iterable[Result]) -> tuple[dict[str, Errors], float | None, float | None]:
    """By quantity; then the Brier score of the chance to converge, and that of saying always yes (1.0 is the
    worst, 0 the best); None without results."""
    scores = [result["score"] for result in results if result.get("score")]
    found: dict[str, Errors] = {}
    for name in QUANTITIES:
        rows = [score[name] for score in scores if score.get(name) and score[name]["error"] is not None]
        if rows:
            errors = [abs(row["error"]) for row in rows]
            found[name] = Errors(
                *(len(rows), median(errors), max(errors)),
                *(sum(_is_close(name, row) for row in rows), sum(row["in_band"] for row in rows)),
            )
    if not scores:
        return found, None, None
    brier = sum((score["chance_to_converge"] - score["converged"]) ** 2 for score in scores) / len(scores)
    always = sum((1 - score["converged"]) ** 2 for score in scores) / len(scores)
    return found, brier, always
