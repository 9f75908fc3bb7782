"""Plans of `tools.fleet.generator`, by seed: the planner beside its baselines, the bound and the best."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from tools.bench.request import BenchRequest
from tools.evacuate.exact import exact_seconds
from tools.evacuate.plan_file import parse_plan
from tools.evacuate.planner import Planned, make_plan
from tools.fleet.generator import Shape, generate
from tools.measuring.progress import say

SHAPES = (Shape(40, 16, 1), Shape(40, 16, 4), Shape(80, 48, 12), Shape(150, 64, 16))
SMALL = Shape(10, 6, 1)
SCALE = (1250, 2500, 5000, 10_000)
SCALE_VMS_A_HOST, SCALE_UPLINKS_A_HOST = 20, 1 / 25


def measure(request: BenchRequest) -> dict[str, Any]:
    """Seeds 1 to `--repeat`."""
    rows, small = [], []
    for seed in range(1, request.repeat + 1):
        for shape in SHAPES:
            say(f"seed {seed}: {shape.vms} VMs, {shape.hosts} hosts, {shape.uplinks} uplinks")
            rows.append(_row(seed, shape))
        small.append(_exact(seed))
    return {"plans": rows, "exact": small, "scale": [_scale(vms) for vms in SCALE]}


def _made(seed: int, shape: Shape, *, baselines: bool = True) -> Planned:
    return make_plan(parse_plan(generate(seed, shape)), baselines=baselines)


def _row(seed: int, shape: Shape) -> dict[str, Any]:
    begun = time.monotonic()
    planned = _made(seed, shape)
    return {
        **vars(shape),
        "seed": seed,
        "planning_seconds": time.monotonic() - begun,
        "bound": planned.bound.seconds,
        "total": planned.chosen.total_seconds,
        "sum": planned.chosen.sum_seconds,
        "left": planned.chosen.left,
        **{
            f"{name}_{what}": value
            for name, one in planned.baselines.items()
            for what, value in (("total", one.total_seconds), ("sum", one.sum_seconds))
        },
    }


def _exact(seed: int) -> dict[str, Any]:
    say(f"seed {seed}: {SMALL.vms} VMs, and the best plan")
    planned = _made(seed, SMALL)
    longest = max(one.total_seconds for one in (planned.chosen, *planned.baselines.values()))
    best = exact_seconds(planned.question, longest)
    return {"seed": seed, "total": planned.chosen.total_seconds, "best": best}


def _scale(vms: int) -> dict[str, Any]:
    shape = Shape(vms, vms // SCALE_VMS_A_HOST, max(4, round(vms / SCALE_VMS_A_HOST * SCALE_UPLINKS_A_HOST)))
    say(f"{shape.vms} VMs, {shape.hosts} hosts")
    plan = parse_plan(generate(1, shape))
    begun = time.monotonic()
    planned = make_plan(plan, baselines=False)
    return {
        **vars(shape),
        "planning_seconds": time.monotonic() - begun,
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "distance": planned.chosen.total_seconds / planned.bound.seconds - 1,
    }


def tables(document: dict[str, Any]) -> str:
    """By shape, then the best plan, then scale."""
    lines = [
        "| VMs, hosts, uplinks | plans | above the bound: ours, cap-k | ours over cap-k's distance | "
        "total beside cap-k | sum beside cap-k | total beside LPT | longer than LPT |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for shape in SHAPES:
        rows = [one for one in document["plans"] if all(one[key] == vars(shape)[key] for key in vars(shape))]
        lines.append(_line(shape, rows))
    small = [one["total"] / one["best"] - 1 for one in document["exact"] if one["best"] is not None]
    found = f"median {median(small):+.1%}, worst {max(small):+.1%}" if small else "none was proved"
    lines += [
        "",
        f"{SMALL.vms} VMs beside the best plan with constant shares ({len(small)} proved): {found}.",
    ]
    lines += ["", "| VMs | hosts | one plan, seconds | memory MiB | above the bound |", "| --- " * 5 + "|"]
    lines += [
        f"| {one['vms']} | {one['hosts']} | {one['planning_seconds']:.1f} | {one['memory_mib']:.0f} | "
        f"{one['distance']:.1%} |"
        for one in document["scale"]
    ]
    return "\n".join(lines)


def _line(shape: Shape, rows: Sequence[dict[str, Any]]) -> str:
    ours = median(one["total"] / one["bound"] - 1 for one in rows)
    cap = median(one["cap-k_total"] / one["bound"] - 1 for one in rows)
    share = [
        (one["total"] / one["bound"] - 1) / max(1e-9, one["cap-k_total"] / one["bound"] - 1) for one in rows
    ]
    half = sum(one <= 0.5 for one in share)
    total, sums, lpt = (
        median(one[mine] / one[theirs] - 1 for one in rows)
        for mine, theirs in (("total", "cap-k_total"), ("sum", "cap-k_sum"), ("total", "lpt_total"))
    )
    longer = sum(one["total"] > one["lpt_total"] * (1 + 1e-9) for one in rows)
    return (
        f"| {shape.vms}, {shape.hosts}, {shape.uplinks} | {len(rows)} | {ours:.1%}, {cap:.1%} | "
        f"{median(share):.2f}; at most half in {half} | {total:+.1%} | {sums:+.1%} | {lpt:+.1%} | {longer} |"
    )
