"""What others would do, with the plan's own destinations, methods and channels."""

from __future__ import annotations

from tools.evacuate.simulation import NO_LIMIT, Question, Strategy

KUBEVIRT_OUT, KUBEVIRT_IN_ALL = 2, 5
"""parallelOutboundMigrationsPerNode and parallelMigrationsPerCluster, KubeVirt's defaults."""

HCO_OUT = 1
"""The same of the HyperConverged Cluster Operator since July 2026 (its pull request 4426)."""

BASELINES = ("one-at-a-time", "cap-k", "cap-k-hco", "lpt")


def baselines_of(question: Question) -> dict[str, Strategy]:
    """By name. Capped ones take VMs as the plan names them, highest priority first."""
    streams = question.plan.limits.streams_a_host
    named = tuple(sorted(range(len(question.jobs)), key=lambda at: -question.jobs[at].vm.priority))
    return {
        "one-at-a-time": Strategy("one-at-a-time", named, NO_LIMIT, 1, 1, 1),
        "cap-k": Strategy("cap-k", named, NO_LIMIT, KUBEVIRT_OUT, NO_LIMIT, KUBEVIRT_IN_ALL),
        "cap-k-hco": Strategy("cap-k-hco", named, NO_LIMIT, HCO_OUT, NO_LIMIT, KUBEVIRT_IN_ALL),
        "lpt": Strategy("lpt", longest_first(question), NO_LIMIT, streams, streams, NO_LIMIT),
    }


def longest_first(question: Question) -> tuple[int, ...]:
    """By priority, then by the time alone."""
    jobs = question.jobs
    return tuple(
        sorted(range(len(jobs)), key=lambda at: (-jobs[at].vm.priority, -jobs[at].alone_seconds, at))
    )
