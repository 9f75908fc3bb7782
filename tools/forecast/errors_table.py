"""How far forecasts were off, by quantity."""

from __future__ import annotations

from pipeline.forecast.score import NAMES, Errors
from pipeline.report.markdown import table


def errors_table(errors: dict[str, Errors]) -> str:
    """One row a quantity; close is within 15 %, a downtime within 30 ms or 25 %."""
    rows = [["", "runs", "median error", "worst", "close", "in the 80 % band"]]
    for name, one in errors.items():
        rows.append(
            [
                *(NAMES[name], str(one.runs), f"{one.median_error:.1%}", f"{one.worst_error:.0%}"),
                *(f"{one.close} of {one.runs}", f"{one.in_band / one.runs:.0%}"),
            ]
        )
    return table(rows)
