"""By which method, and how many channels, each VM goes: what spares the resource that all wait for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.forecast.rounds import Steps
from tools.evacuate.fabric import Fabric
from tools.evacuate.plan_file import Host, Plan, Vm
from tools.evacuate.work import Job, Option, case_of, demand_of, job_of, options_of, seconds_about

PASSES = 3
SHARPNESS = 4
"""A resource half as loaded as the fullest counts a sixteenth."""

OWN_TIME = 0.25
"""What a second of a VM's own time counts beside a second of the fullest resource."""

WORST = 20.0
"""What is not foreseen to converge counts as so many first rounds."""

TRIED = 6
"""So many options are tried for one that converges."""


@dataclass(frozen=True)
class _Estimate:
    """What an option takes: seconds of each shared resource if it had that to itself, and its own time."""

    option: Option
    uses: tuple[tuple[int, float], ...]
    seconds: float


def chosen(plan: Plan, fabric: Fabric, destinations: Sequence[Host]) -> list[Job]:
    """A job for each VM."""
    table: dict[tuple[object, ...], list[_Estimate]] = {}
    estimates = []
    for vm, host in zip(plan.vms, destinations, strict=True):
        kind = (vm.host, host.name, vm.size_bytes, vm.zero_share, vm.ratio, vm.sample, vm.preset, vm.curve)
        key = (*kind, vm.dirty_rate, vm.working_set_bytes)
        if key not in table:
            table[key] = _estimates(plan, fabric, vm, host)
        estimates.append(table[key])
    picked = [min(rows, key=lambda row: row.seconds) for rows in estimates]
    prices: list[float] = []
    for _ in range(PASSES):
        prices = _prices(fabric, picked)
        picked = [min(rows, key=lambda row: _price(row, prices)) for rows in estimates]
    prices = _prices(fabric, picked)
    return [
        _converging(plan, fabric, vm, host, sorted(rows, key=lambda row: _price(row, prices)))
        for vm, host, rows in zip(plan.vms, destinations, estimates, strict=True)
    ]


def _estimates(plan: Plan, fabric: Fabric, vm: Vm, host: Host) -> list[_Estimate]:
    """By the first round, and what the guest writes during it."""
    source = plan.hosts[vm.host]
    path = fabric.path(source, host)
    rows = []
    for option in options_of(vm, source, host):
        case = case_of(plan, vm, source, host, option, fabric.rate(path))
        work = Steps(case).work()
        job = Job(vm, source, host, option, case, path, (), 0.0, 0.0, 0.0, True)
        demand = demand_of(job, work, fabric, vm.size_bytes)
        links = [demand.most_bytes_per_second, *(fabric.capacity[one] for one in path)]
        first = demand.wire_bytes / min(links)
        seconds = seconds_about(case.curve, work, demand.wire_bytes, min(links))
        whole = min(seconds / first, WORST)
        uses = tuple(
            (one, amount * demand.wire_bytes * whole / fabric.capacity[one]) for one, amount in demand.uses
        )
        rows.append(_Estimate(option, uses, first * whole))
    return rows


def _prices(fabric: Fabric, picked: Sequence[_Estimate]) -> list[float]:
    """What a second of each resource costs: 1 of the fullest, next to nothing where there is plenty."""
    load = [0.0] * len(fabric.capacity)
    for row in picked:
        for one, seconds in row.uses:
            load[one] += seconds
    fullest = max(load)
    return [(one / fullest) ** SHARPNESS if fullest else 0.0 for one in load]


def _price(row: _Estimate, prices: Sequence[float]) -> float:
    return sum(prices[one] * seconds for one, seconds in row.uses) + OWN_TIME * row.seconds


def _converging(plan: Plan, fabric: Fabric, vm: Vm, host: Host, rows: Sequence[_Estimate]) -> Job:
    """The cheapest that converges alone; the quickest where none does."""
    for row in rows[:TRIED]:
        job = job_of(plan, fabric, vm, host, row.option)
        if job.converges:
            return job
    return job_of(plan, fabric, vm, host, min(rows, key=lambda row: row.seconds).option)
