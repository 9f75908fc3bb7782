"""One migration, walked through round by round: pure, and the same for the same figures.

The time of a round is that of the resource that is full: the wire, the channels, the receivers, or the CPUs
that both sides share. What to do after a round is the run's own policy's word (`pipeline.policy`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from guestmem.page import PAGE_BYTES
from pipeline.dirty_curve import DirtyCurve
from pipeline.forecast.activity import Activity
from pipeline.forecast.beside import Beside
from pipeline.policy import Decision, PolicySettings, RoundFigures, Situation, Verdict, decide

ROUND_MS, SWITCHOVER_MS = 0.5, 0.5
"""Beside the pages: the barrier of a round; pausing the guest and handing it over."""

SHARPNESS = 10
"""Where CPUs and wire are as full as each other each waits for the other now and then: 7 % there, nothing
where one is half as full."""

MOST_ROUNDS = 400


@dataclass(frozen=True)
class Cost:
    """Of a byte of normal pages: CPU nanoseconds of both sides, and bytes on the wire.

    A channel, or a receiver, is held for its CPU and for so long as it waits for a device beside that.
    """

    send_ns: float
    recv_ns: float
    wire_share: float
    send_wait_ns: float = 0.0
    recv_wait_ns: float = 0.0


@dataclass(frozen=True)
class Resources:
    """What there is: `cpus` at the source, `recv_cpus` at the destination, `both_cpus` of one host or 0."""

    channels: int
    receivers: int
    cpus: float
    recv_cpus: float
    both_cpus: float
    link_bytes_per_second: float


@dataclass(frozen=True)
class Case:
    """One draw. Shares of zero pages; `whole` is the cost of all pages, `written` of those written since;
    `beside` what this program's sender and receiver need besides."""

    ram_pages: int
    zero_share: float
    written_zero_share: float
    curve: DirtyCurve
    whole: Cost
    written: Cost
    resources: Resources
    sync_ms: float
    policy: PolicySettings
    beside: Beside = field(default_factory=Beside)
    activity: Activity = field(default_factory=Activity)
    begun_seconds: float = 0.0
    """Where in the guest's activity it begins."""


@dataclass(frozen=True)
class Outcome:
    """What a run of this case would report."""

    converged: bool
    total_ms: float
    downtime_ms: float
    rounds: int
    wire_bytes: float
    send_cpu_seconds: float
    recv_cpu_seconds: float


@dataclass
class _Sums:
    total_ms: float = 0.0
    wire_bytes: float = 0.0
    send_cpu_seconds: float = 0.0
    recv_cpu_seconds: float = 0.0


def walk(case: Case) -> Outcome:
    """From the first page to the last."""
    sums = _Sums()
    rounds: list[RoundFigures] = []
    verdicts: list[Verdict] = []
    pages, zero_share, cost = float(case.ram_pages), case.zero_share, case.whole
    throttle, limit_ms = 0, case.policy.downtime_limit_ms
    while len(rounds) < MOST_ROUNDS:
        milliseconds = _round(case, pages, zero_share, cost, sums)
        seconds = (milliseconds + case.sync_ms) / 1e3
        writes = case.activity.mean(case.begun_seconds + (sums.total_ms - milliseconds) / 1e3, seconds)
        curve = _at_pace(case.curve, writes * (1 - throttle / 100))
        dirty = curve.pages_after(seconds)
        normal = pages * (1 - zero_share)
        rounds.append(
            RoundFigures(
                round=len(rounds) + 1,
                pages=round(pages),
                normal_pages=round(normal),
                zero_pages=round(pages - normal),
                wire_bytes=round(normal * PAGE_BYTES * cost.wire_share),
                duration_ms=milliseconds,
                dirty_pages=round(dirty),
                curve=curve,
                throttle_percent=throttle,
            )
        )
        verdict = decide(case.policy, Situation(rounds, verdicts, throttle, limit_ms, case.sync_ms))
        verdicts.append(verdict)
        throttle, limit_ms = verdict.throttle_percent, verdict.downtime_limit_ms
        pages, zero_share, cost = dirty, case.written_zero_share, case.written
        if verdict.decision is not Decision.CONTINUE:
            break
    if not verdicts or verdicts[-1].decision is not Decision.SWITCH_OVER:
        return _outcome(sums, len(rounds), converged=False, downtime_ms=0.0)
    before = sums.total_ms
    last = _round(case, pages, zero_share, cost, sums) if pages >= 1 else 0.0
    sums.total_ms = before + last + case.sync_ms + SWITCHOVER_MS
    count = len(rounds) + (pages >= 1)
    return _outcome(sums, count, converged=True, downtime_ms=sums.total_ms - before)


def _outcome(sums: _Sums, rounds: int, *, converged: bool, downtime_ms: float) -> Outcome:
    return Outcome(
        *(converged, sums.total_ms, downtime_ms, rounds, sums.wire_bytes),
        *(sums.send_cpu_seconds, sums.recv_cpu_seconds),
    )


def _both_full(busy: float, wire: float) -> float:
    longest = max(busy, wire)
    return longest * (1 + (min(busy, wire) / longest) ** SHARPNESS) ** (1 / SHARPNESS) if longest else 0.0


def _at_pace(curve: DirtyCurve, pace: float) -> DirtyCurve:
    """Of a guest that writes at so much of its mean."""
    slower = 1 / max(0.001, pace)
    return DirtyCurve(tuple(at * slower for at in curve.seconds), curve.pages, curve.ram_pages)


def _round(case: Case, pages: float, zero_share: float, cost: Cost, sums: _Sums) -> float:
    """Milliseconds that so many pages take; what they cost is added up."""
    scanned = pages * PAGE_BYTES
    normal = scanned * (1 - zero_share)
    wire = normal * cost.wire_share
    send = (normal * (cost.send_ns + case.beside.send_ns) + scanned * case.beside.scan_ns) / 1e9
    recv = normal * (cost.recv_ns + case.beside.recv_ns) / 1e9
    have = case.resources
    busy = max(
        send / max(0.1, have.cpus),
        (send + normal * cost.send_wait_ns / 1e9) / have.channels,
        recv / max(0.1, have.recv_cpus),
        (recv + normal * cost.recv_wait_ns / 1e9) / have.receivers,
        (send + recv) / have.both_cpus if have.both_cpus else 0.0,
    )
    seconds = _both_full(busy, wire / have.link_bytes_per_second if have.link_bytes_per_second else 0.0)
    send += case.beside.send_waiting * (seconds - busy)
    recv += case.beside.recv_waiting * (seconds - busy)
    milliseconds = seconds * 1e3 + ROUND_MS
    sums.total_ms += milliseconds
    sums.wire_bytes += wire
    sums.send_cpu_seconds += send
    sums.recv_cpu_seconds += recv
    return milliseconds
