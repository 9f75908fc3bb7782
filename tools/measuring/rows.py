"""Figures by name, as turns of a measurement collect them."""

from __future__ import annotations

from tools.measuring.progress import say
from tools.measuring.spread import Spread

Rows = dict[str, list[dict[str, float]]]
"""What was measured, by what it is of: a dictionary of figures for each turn."""

NAME_WIDTH = 18


def note(rows: Rows, name: str, figures: dict[str, float]) -> None:
    """Add the figures of one turn, and print them."""
    rows.setdefault(name, []).append(figures)
    say(f"  {name:{NAME_WIDTH}} " + ", ".join(f"{key} {value:.2f}" for key, value in figures.items()))


def spread(values: list[dict[str, float]], *keys: str) -> Spread:
    """One figure over all turns, or the sum of several figures."""
    return Spread(tuple(sum(value[key] for key in keys) for value in values))
