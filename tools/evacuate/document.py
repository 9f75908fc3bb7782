"""A plan as JSON: what `--json` writes, and what the text, the page and --execute read. docs/evacuate.md has
every key."""

from __future__ import annotations

from typing import Any

from tools.evacuate.draws import Chances
from tools.evacuate.planner import Planned
from tools.evacuate.simulation import Move, Played, Question, play

SCHEMA_VERSION = 1
MOST_POINTS = 400
"""Of one link's use, as drawn."""

SIGNIFICANT = 6


def document_of(planned: Planned, chances: Chances | None, exact_seconds: float | None) -> dict[str, Any]:
    """Seconds are since the plan begins."""
    question, played = planned.question, planned.chosen
    limits = question.plan.limits
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "completed",
        "error": None,
        "title": question.plan.title,
        "total_seconds": _short(played.total_seconds),
        "sum_seconds": _short(played.sum_seconds),
        "cpu_hours": _short(sum(move.cpu_seconds for move in played.moves) / 3600),
        "wire_bytes": round(sum(move.wire_bytes for move in played.moves)),
        "left": [question.jobs[move.job].vm.name for move in played.moves if not move.moved],
        "deadline_seconds": limits.deadline_seconds or None,
        "keeps_deadline": not limits.deadline_seconds or played.total_seconds <= limits.deadline_seconds,
        "chance_to_keep_deadline": None if chances is None else chances.to_keep(limits.deadline_seconds),
        "draws": None if chances is None else chances.record(),
        "bound": {"seconds": _short(planned.bound.seconds), "by": planned.bound.by},
        "exact_seconds": exact_seconds,
        "distance_to_bound": _short(_distance(played, planned)),
        "schedule": {
            "fill": _short(played.strategy.fill) if played.strategy.fill < 1e9 else None,
            "patience": played.strategy.patience,
        },
        "baselines": {name: _baseline(one, planned) for name, one in planned.baselines.items()},
        "hosts": [{"name": host.name, "empty": host.empty} for host in question.plan.hosts.values()],
        "migrations": [_migration(question, move) for move in played.moves],
        "links": _links(question, played),
    }


def _distance(played: Played, planned: Planned) -> float:
    return played.total_seconds / planned.bound.seconds - 1 if planned.bound.seconds else 0.0


def _baseline(played: Played, planned: Planned) -> dict[str, Any]:
    return {
        "total_seconds": _short(played.total_seconds),
        "sum_seconds": _short(played.sum_seconds),
        "cpu_hours": _short(sum(move.cpu_seconds for move in played.moves) / 3600),
        "distance_to_bound": _short(_distance(played, planned)),
        "left": played.left,
    }


def _migration(question: Question, move: Move) -> dict[str, Any]:
    job = question.jobs[move.job]
    limit = move.limit_bytes_per_second
    return {
        "vm": job.vm.name,
        "from": job.source.name,
        "to": job.destination.name,
        "start_seconds": _short(move.start_seconds),
        "end_seconds": _short(move.end_seconds),
        "method": job.option.method,
        "level": job.option.level,
        "channels": job.option.channels,
        "max_bandwidth_bytes_per_second": None if limit is None else round(limit),
        "downtime_start_seconds": _short(move.downtime_start_seconds),
        "downtime_ms": _short(move.downtime_seconds * 1e3),
        "wire_bytes": round(move.wire_bytes),
        "cpu_seconds": _short(move.cpu_seconds),
        "alone_seconds": _short(job.alone_seconds),
        "converges": move.moved and move.attempts == 1,
        "attempts": move.attempts,
    }


def _links(question: Question, played: Played) -> list[dict[str, Any]]:
    """Each direction of each link that carries anything: its use over time, as steps of (seconds, share)."""
    steps: dict[int, list[tuple[float, float]]] = {}

    def watch(resource: int, now: float, used: float) -> None:
        rows = steps.setdefault(resource, [])
        if rows and rows[-1][0] == now:
            rows.pop()
        rows.append((now, used))

    play(question, played.strategy, watch=watch)
    found = []
    for number, rows in sorted(steps.items()):
        resource = question.fabric.resources[number]
        if resource.kind in ("up", "down"):
            shares = [(at, used / resource.capacity) for at, used in rows]
            found.append(
                {
                    "name": resource.name,
                    "direction": resource.kind,
                    "bytes_per_second": resource.capacity,
                    "use": _thinned(shares, played.total_seconds),
                }
            )
    return found


def _thinned(steps: list[tuple[float, float]], total: float) -> list[tuple[float, float]]:
    """Not more than `MOST_POINTS`: means over equal stretches of time where there are more."""
    if len(steps) <= MOST_POINTS or not total:
        return [(_short(at), _short(share)) for at, share in steps]
    width = total / MOST_POINTS
    sums = [0.0] * (MOST_POINTS + 1)
    for (at, share), (until, _) in zip(steps, [*steps[1:], (total, 0.0)], strict=True):
        while at < until - 1e-12:
            slot = min(int(at / width), MOST_POINTS)
            end = min(until, (slot + 1) * width) if slot < MOST_POINTS else until
            end = end if end > at else until
            sums[slot] += share * (end - at)
            at = end
    return [(_short(slot * width), _short(one / width)) for slot, one in enumerate(sums[:MOST_POINTS])]


def _short(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT}g}")
