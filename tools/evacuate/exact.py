"""The best plan for a few VMs, by OR-tools' CP-SAT: how far from it is ours?

A solver cannot let shares change at any moment. Here each VM gets a share of its full rate, one of `SHARES`,
for as long as it runs, takes what the model says it takes at that share, and no link or CPU is asked for more
than it has. Destinations and methods are the plan's. The best such plan is proved.
"""

from __future__ import annotations

from typing import Any

from pipeline.errors import HostError, UsageError
from pipeline.forecast.rounds import Steps
from tools.evacuate.simulation import Question
from tools.evacuate.work import Job, demand_of

MOST_VMS = 12
SHARES = (1.0, 0.75, 0.5, 0.25)
TICKS = 1000
"""A plan of all VMs one at a time is divided into so many."""

PARTS = 10_000
GAP = 0.02
"""The solver stops when the best plan is known to be within this of the bound, or after `SECONDS`; the bound
is what is told."""

SECONDS = 30.0
WORKERS = 2


def exact_seconds(question: Question, longest: float) -> float | None:
    """What its total is not below; None where no plan was found. `longest` is that of any plan. Raises
    UsageError for more than `MOST_VMS`, HostError without OR-tools."""
    try:
        from ortools.sat.python import cp_model
    except ImportError as error:
        raise HostError("--exact needs OR-tools: pip install 'ramferry[fleet]'") from error
    if len(question.jobs) > MOST_VMS:
        raise UsageError(f"--exact: {len(question.jobs)} VMs; it solves plans of up to {MOST_VMS}")
    model = cp_model.CpModel()
    tick = longest / TICKS
    end = model.new_int_var(0, TICKS + 1, "end")
    at_work: dict[int, list[tuple[Any, int, Any]]] = {}
    for number, job in enumerate(question.jobs):
        _add_job(model, question, number, job, tick, end, at_work)
    for rows in at_work.values():
        model.add_cumulative([one for one, _, _ in rows], [amount for _, amount, _ in rows], PARTS)
        model.add(sum(carried for _, _, carried in rows) <= PARTS * end)
    model.minimize(end)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = SECONDS
    solver.parameters.relative_gap_limit = GAP
    solver.parameters.num_workers = WORKERS
    solver.parameters.random_seed = 1
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return float(solver.best_objective_bound * tick)


def _add_job(
    model: Any,
    question: Question,
    number: int,
    job: Job,
    tick: float,
    end: Any,
    at_work: dict[int, list[tuple[Any, int, Any]]],
) -> None:
    """One of the shares, as an interval that is there or not."""
    begun, ways = model.new_int_var(0, TICKS, f"begun{number}"), []
    for share in SHARES:
        seconds = seconds_at(question, job, share)
        ticks = round(seconds / tick)
        if share < 1.0 and ticks > TICKS:
            continue
        there = model.new_bool_var(f"way{number}-{share}")
        interval = model.new_optional_fixed_size_interval_var(begun, ticks, there, f"i{number}-{share}")
        model.add(end >= begun + ticks).only_enforce_if(there)
        ways.append(there)
        asked = question.asked[number]
        for resource, amount in asked.carried:
            part = amount * asked.most * share / question.fabric.capacity[resource]
            at_work.setdefault(resource, []).append(
                (interval, min(PARTS, int(part * PARTS)), there * (ticks * min(PARTS, int(part * PARTS))))
            )
    model.add_exactly_one(ways)


def seconds_at(question: Question, job: Job, share: float) -> float:
    """What the migration takes at this share of its full rate, all the time."""
    steps = Steps(job.case)
    scanned: float = job.vm.size_bytes
    while not steps.over:
        work = steps.work()
        demand = demand_of(job, work, question.fabric, scanned)
        seconds = demand.wire_bytes / (demand.most_bytes_per_second * share)
        steps.took(work, seconds * 1e3, work.held_seconds)
        scanned = 0.0
    limits = question.plan.limits
    beside = limits.start_seconds + limits.end_seconds
    return steps.elapsed_ms / 1e3 + beside if steps.converged else float("1e12")
