"""Rows published and modelled, the error of each, and whether the model ranks them right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import median
from typing import Any

from tools.forecast.published.model import Modelled

TIE = 0.05
"""Rows whose times are closer than this share have no order."""

SMALL, LARGE = 0.08, 0.25
"""What is asked of the errors: their median, and all but one."""


@dataclass(frozen=True)
class Compared:
    """A row. `modelled` None with `why`; `use` says what else the row was used for, and is then not scored.
    CPU None where the source has none."""

    table: str
    channels: int
    method: str
    total_ms: float
    send_cpu: float | None
    recv_cpu: float | None
    modelled: Modelled | None
    use: str = ""
    why: str = ""

    @property
    def error(self) -> float | None:
        """Of the total time, a share of what was published."""
        return None if self.modelled is None else self.modelled.total_ms / self.total_ms - 1

    @property
    def scored(self) -> bool:
        return self.modelled is not None and not self.use

    def record(self) -> dict[str, Any]:
        """As the JSON has it."""
        return {**asdict(self), "error": self.error}


@dataclass(frozen=True)
class Errors:
    """Of rows that were used for nothing."""

    rows: int
    median: float
    worst: float
    within_8_percent: int
    within_25_percent: int


def errors_of(rows: Iterable[Compared]) -> Errors | None:
    """None without such rows."""
    errors = [abs(row.error) for row in rows if row.scored and row.error is not None]
    if not errors:
        return None
    within = (sum(error <= limit for error in errors) for limit in (SMALL, LARGE))
    return Errors(len(errors), median(errors), max(errors), *within)


@dataclass(frozen=True)
class Ranking:
    """Pairs of one table's rows: how many are ties as published, how many of the rest are in their order, and
    which are not."""

    table: str
    ties: int
    right: int
    wrong: tuple[str, ...]


def ranking(table: str, rows: list[Compared]) -> Ranking:
    """All pairs of rows that are modelled."""
    ties, right, wrong = 0, 0, []
    for one, other in combinations([row for row in rows if row.modelled is not None], 2):
        fast, slow = sorted((one, other), key=lambda row: row.total_ms)
        assert fast.modelled is not None
        assert slow.modelled is not None
        if slow.total_ms < fast.total_ms * (1 + TIE):
            ties += 1
        elif fast.modelled.total_ms < slow.modelled.total_ms:
            right += 1
        else:
            wrong.append(f"{fast.method} {fast.channels} before {slow.method} {slow.channels}")
    return Ranking(table, ties, right, tuple(wrong))
