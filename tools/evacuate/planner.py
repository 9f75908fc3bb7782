"""The plan: several schedules are played through, and the one with the least total time is taken, with a
little weight on the sum of the migrations.

A link that is shared by more VMs than fill it makes each of them slower, and of a slow VM more is sent
twice, since it is rewritten meanwhile. So VMs start only while the links and CPUs on their way have room for
them at full speed, as many as that are, the ones on the most loaded link first; what is left of a link may go
to a calm one with a limit. How full is best depends on how much time of a migration carries nothing, so
several degrees are tried, with the named baselines beside.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from tools.evacuate.baselines import BASELINES, baselines_of, longest_first
from tools.evacuate.bound import Bound, bound_of
from tools.evacuate.fabric import Fabric
from tools.evacuate.methods import chosen
from tools.evacuate.placement import placed
from tools.evacuate.plan_file import Plan
from tools.evacuate.simulation import NO_LIMIT, Played, Question, Strategy, play, play_until
from tools.evacuate.work import options_of

FILLS = ((1.0, 0.0), (1.0, 0.5), (1.0, 1.0), (1.05, 0.7), (1.15, 0.5), (1.4, 0.0), (2.0, 0.0), (3.0, 0.0))
MANY_JOBS, FEW_FILLS = 2000, ((1.0, 0.7), (1.4, 0.0))
"""How full, and how patient. From so many jobs on fewer are tried, in one order, and of the baselines LPT."""

SEARCH_MOVES = 12_000
"""Jobs that the search for a better order may play: many tries for few VMs, none for many."""

SEED = 1
OTHERWISE = 0.3
NEAR_ENOUGH = 1.002
SUM_WEIGHT = 0.05
"""A plan that takes 1 % longer is as good where the sum of its migrations is 18 % shorter: a guest under
migration runs slower, and its host keeps two copies."""


@dataclass(frozen=True)
class Planned:
    """The chosen schedule, the baselines that were played, and what nobody can beat."""

    question: Question
    chosen: Played
    baselines: dict[str, Played]
    bound: Bound


def make_plan(plan: Plan, *, baselines: bool = True) -> Planned:
    """Without `baselines` those are only played as far as they might be better. Raises UsageError where a VM
    has nowhere to go."""
    question = question_of(plan)
    bound = bound_of(question)
    asked = baselines_of(question)
    beside = {name: play(question, asked[name]) for name in (BASELINES if baselines else ())}
    first, *others = candidates_of(question)
    best = min([play(question, first), *beside.values()], key=_worth)
    for strategy in others:
        best = _better(question, best, strategy)
    best = _searched(question, best, bound)
    # With shorter migrations it may still take longer than a baseline does.
    best = min([best, *beside.values()], key=_length)
    for name in () if baselines else BASELINES if len(plan.vms) < MANY_JOBS else ("lpt",):
        best = _shorter(question, best, asked[name])
    return Planned(question, _named(best), beside, bound)


def _length(played: Played) -> tuple[float, float]:
    return (played.left, played.total_seconds)


def _shorter(question: Question, best: Played, strategy: Strategy) -> Played:
    """Without a look at the sum of the migrations."""
    return min(best, _tried(question, best, strategy, best.total_seconds), key=_length)


def _tried(question: Question, best: Played, strategy: Strategy, until: float) -> Played:
    """Played, or the best so far where it takes longer than that; where VMs were left time says nothing."""
    return (play(question, strategy) if best.left else play_until(question, strategy, until)) or best


def _better(question: Question, best: Played, strategy: Strategy) -> Played:
    """The better one of both."""
    least_sum = sum(job.alone_seconds for job in question.jobs if job.converges)
    until = best.total_seconds * max(1.0, best.sum_seconds / max(least_sum, 1e-9)) ** SUM_WEIGHT
    return min(best, _tried(question, best, strategy, until), key=_worth)


def question_of(plan: Plan) -> Question:
    """Placement, then methods."""
    fabric = Fabric(plan)
    sizes = []
    for vm in plan.vms:
        source = plan.hosts[vm.host]
        shares = (option.cost.wire_share for option in options_of(vm, source, source))
        sizes.append(vm.size_bytes * (1 - vm.zero_share) * min(shares))
    return Question(plan, fabric, chosen(plan, fabric, placed(plan, fabric, sizes)))


def candidates_of(question: Question) -> list[Strategy]:
    """Two orders, each with several degrees of filling."""
    streams = question.plan.limits.streams_a_host
    fills = FILLS if len(question.jobs) < MANY_JOBS else FEW_FILLS
    orders = [_most_loaded_first(question)]
    orders += [longest_first(question)] if len(question.jobs) < MANY_JOBS else []
    return [
        Strategy("ramferry", order, fill, streams, streams, NO_LIMIT, patience)
        for order in orders
        for fill, patience in fills
    ]


def _most_loaded_first(question: Question) -> tuple[int, ...]:
    """By priority; then by the load of the fullest resource on the way; then the longest."""
    load = [0.0] * len(question.fabric.capacity)
    for job in question.jobs:
        for link in job.path:
            load[link] += job.alone_wire_bytes / question.fabric.capacity[link]

    def key(at: int) -> tuple[float, ...]:
        job = question.jobs[at]
        fullest = max((load[link] for link in job.path), default=0.0)
        return (not job.converges, -job.vm.priority, -fullest, -job.alone_seconds, at)

    return tuple(sorted(range(len(question.jobs)), key=key))


def _worth(played: Played) -> tuple[float, float]:
    """The least is the best: few that are left, a short plan, and short migrations in it."""
    return (played.left, played.total_seconds * played.sum_seconds**SUM_WEIGHT)


def _named(played: Played) -> Played:
    return replace(played, strategy=replace(played.strategy, name="ramferry"))


def _searched(question: Question, best: Played, bound: Bound) -> Played:
    """Near the best one, as often as its size allows: one job elsewhere in the order, or filled otherwise."""
    count = len(question.jobs)
    chance = random.Random(SEED)
    for _ in range(SEARCH_MOVES // count if count > 1 else 0):
        if best.total_seconds <= bound.seconds * NEAR_ENOUGH:
            break
        best = _better(question, best, _near(question, best.strategy, chance))
    return best


def _near(question: Question, strategy: Strategy, chance: random.Random) -> Strategy:
    """Priorities stay in order."""
    order = list(strategy.order)
    order.insert(chance.randrange(len(order)), order.pop(chance.randrange(len(order))))
    order.sort(key=lambda at: -question.jobs[at].vm.priority)
    near = replace(strategy, order=tuple(order))
    if chance.random() < OTHERWISE:
        near = replace(near, fill=chance.uniform(1, 2), patience=chance.choice((0.0, 0.4, 0.7, 1.0)))
    return near
