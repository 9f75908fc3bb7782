"""How short no plan with these destinations and methods can be.

Whatever is done, a VM sends at least what it sends with its path to itself: slower rounds leave more dirty.
So no plan ends before the fullest link has carried all of that, nor before the longest VM alone is through.
"""

from __future__ import annotations

from dataclasses import dataclass

from tools.evacuate.simulation import Question


@dataclass(frozen=True)
class Bound:
    """Seconds, and which resource or VM says so."""

    seconds: float
    by: str


def bound_of(question: Question) -> Bound:
    """The largest of all the bounds."""
    fabric, limits = question.fabric, question.plan.limits
    carried = [0.0] * len(fabric.capacity)
    for job in question.jobs:
        for link in job.path:
            carried[link] += job.alone_wire_bytes / fabric.capacity[link]
    found = [
        Bound(seconds, f"link {one.label}") for seconds, one in zip(carried, fabric.resources, strict=True)
    ]
    beside = limits.start_seconds + limits.end_seconds
    found += [Bound(job.alone_seconds + beside, f"vm {job.vm.name} alone") for job in question.jobs]
    return max(found, key=lambda one: one.seconds)
