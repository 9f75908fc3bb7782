"""How good the forecasts of many runs were, from their result documents."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.forecast.score import NAMES, SCORED, errors_of
from tools.forecast.errors_table import errors_table

WORST = 5


def score_folder(folder: Path) -> tuple[dict[str, Any], str]:
    """Figures and text of all results with a score in a folder. Raises UsageError where there is none."""
    results: list[tuple[dict[str, Any], str]] = []
    unread = without = 0
    for path in sorted(folder.glob("**/*.json")):
        try:
            found = json.loads(path.read_text())
            runs = found.get("runs", [found])
            scored = [one for one in runs if one.get("score") and one["status"] in SCORED]
            errors_of(scored)
            results += [(one, f"{path.name}: {_why(one)}") for one in scored]
            without += not scored
        except (ValueError, AttributeError, OSError, KeyError, TypeError):
            unread += 1
    if not results:
        raise UsageError(f"--score {folder}: no result with a score; runs with --forecast have one")
    errors, brier, always = errors_of([one for one, _ in results])
    worst = sorted(
        ((_error(one), why) for one, why in results if one["score"].get("total_ms")), reverse=True
    )[:WORST]
    lines = [errors_table(errors), f"Chance to converge: Brier score {brier:.3f}; always yes {always:.3f}."]
    if without:
        lines.append(f"{without} results have no score.")
    if unread:
        lines.append(f"{unread} files were no results.")
    lines += ["Worst by total time:", *(f"- {why}" for _, why in worst)]
    figures = {
        "results": len(results),
        "errors": {name: asdict(one) for name, one in errors.items()},
        "brier": brier,
        "brier_always_yes": always,
    }
    return figures, "\n".join(lines)


def _error(result: dict[str, Any]) -> float:
    """Of the total time, either way."""
    return abs(float(result["score"]["total_ms"]["error"] or 0))


def _why(result: dict[str, Any]) -> str:
    """Where a forecast went wrong: what else was off."""
    score = result["score"]
    parts = [
        f"{NAMES[name]} {score[name]['error']:+.0%}"
        for name in NAMES
        if score.get(name) and score[name]["error"] is not None
    ]
    said = result["forecast"]
    level = "" if said["level"] is None else f" {said['level']}"
    return f"{said['method']}{level}, {said['channels']} channels: " + ", ".join(parts)
