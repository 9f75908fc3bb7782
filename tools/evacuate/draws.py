"""The plan under chance: guests that write more or less than thought, ratios, speeds and links that differ.

Each draw plays the same strategy: who starts is decided as it goes, as `--execute` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.dirty_curve import DirtyCurve
from pipeline.forecast.cost import Cost
from tools.evacuate.plan_file import Noise
from tools.evacuate.simulation import Question, Strategy, play
from tools.evacuate.work import Job

LOW, HIGH = 0.1, 0.9
BATCH = 8
"""Draws of one task: some tenths of a second of work for a rack."""

Totals = list[tuple[float, int]]
Spread = Callable[[Callable[[Sequence[int]], Totals], list[list[int]]], list[Totals]]
"""How batches of draws are worked on: here, or on a cluster."""


@dataclass(frozen=True)
class Chances:
    """Total seconds of each draw, and how many VMs were left."""

    totals: tuple[tuple[float, int], ...]

    def to_keep(self, deadline_seconds: float) -> float | None:
        """In how many of the draws all VMs were away in time; None without a deadline."""
        if not deadline_seconds:
            return None
        return sum(total <= deadline_seconds and not left for total, left in self.totals) / len(self.totals)

    def record(self) -> dict[str, Any]:
        low, middle, high = np.quantile([total for total, _ in self.totals], (LOW, 0.5, HIGH))
        return {
            "count": len(self.totals),
            "total_seconds": {"expected": float(middle), "low": float(low), "high": float(high)},
            "with_vms_left": sum(left > 0 for _, left in self.totals),
        }


def chances_of(question: Question, strategy: Strategy, draws: int, spread: Spread) -> Chances:
    """The same for the same plan and number, however it is spread."""
    batches = [list(range(first, min(first + BATCH, draws))) for first in range(0, draws, BATCH)]
    found = spread(Drawing(question, strategy), batches)
    return Chances(tuple(one for totals in found for one in totals))


def here(work: Callable[[Sequence[int]], Totals], batches: list[list[int]]) -> list[Totals]:
    """In this process."""
    return [work(batch) for batch in batches]


class Drawing:
    """Plays a strategy for numbered draws."""

    def __init__(self, question: Question, strategy: Strategy) -> None:
        self._question, self._strategy = question, strategy

    def __call__(self, numbers: Sequence[int]) -> Totals:
        return [self._one(number) for number in numbers]

    def _one(self, number: int) -> tuple[float, int]:
        chance = np.random.default_rng([1, number])
        noise = self._question.plan.noise
        jobs = [_drawn(job, noise, chance) for job in self._question.jobs]
        link = max(0.1, float(chance.normal(1.0, noise.link)))
        played = play(self._question, self._strategy, jobs, link)
        return played.total_seconds, played.left


def _drawn(job: Job, noise: Noise, chance: np.random.Generator) -> Job:
    pace, wire, speed = np.exp(chance.normal(0.0, 1.0, 3) * (noise.dirty, noise.ratio, noise.speed))
    curve = job.case.curve
    slower = DirtyCurve(tuple(at / float(pace) for at in curve.seconds), curve.pages, curve.ram_pages)

    def cost(one: Cost) -> Cost:
        return Cost(
            one.send_ns * speed,
            one.recv_ns * speed,
            one.wire_share if job.option.method == "none" else min(1.0, one.wire_share * wire),
            one.send_wait_ns * speed,
            one.recv_wait_ns * speed,
        )

    case = replace(job.case, curve=slower, whole=cost(job.case.whole), written=cost(job.case.written))
    return replace(job, case=case)
