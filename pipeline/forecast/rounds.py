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
from pipeline.forecast.cost import Cost, Deltas
from pipeline.forecast.packet_size import PACKET_BYTES
from pipeline.forecast.qemu_limit import passed_bytes_per_second
from pipeline.policy import Decision, PolicySettings, RoundFigures, Situation, Verdict, decide

ROUND_MS, SWITCHOVER_MS = 0.5, 0.5
"""Beside the pages: the barrier of a round; pausing the guest and handing it over."""

SHARPNESS = 10
"""Where CPUs and wire are as full as each other each waits for the other now and then: 7 % there, nothing
where one is half as full."""

MOST_ROUNDS = 400


@dataclass(frozen=True)
class Resources:
    """What there is: `cpus` at the source, `recv_cpus` at the destination, `both_cpus` of one host or 0;
    `qemu_limit_bytes_per_second` is QEMU's own max-bandwidth, or 0."""

    channels: int
    receivers: int
    cpus: float
    recv_cpus: float
    both_cpus: float
    link_bytes_per_second: float
    qemu_limit_bytes_per_second: float = 0.0

    def carried_bytes_per_second(self, normal_bytes: float, wire_bytes: float) -> float:
        """What goes over the wire of these pages; 0 is no limit."""
        if not self.qemu_limit_bytes_per_second or not normal_bytes:
            return self.link_bytes_per_second
        packet = PACKET_BYTES * wire_bytes / normal_bytes
        passed = passed_bytes_per_second(self.qemu_limit_bytes_per_second, self.channels, packet)
        return min(passed, self.link_bytes_per_second or passed)


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
    deltas: Deltas | None = None


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


@dataclass(frozen=True)
class Work:
    """What a round is: bytes of normal pages and on the wire, CPU seconds of both sides, and how long a round
    cannot be shorter, since a channel or a receiver is held by its part."""

    normal_bytes: float
    wire_bytes: float
    send_seconds: float
    recv_seconds: float
    held_seconds: float


class Steps:
    """A migration, one round after the other: `work` is what the next one is, `took` says how long it was.

    Who plays it decides how fast the rounds go: `walk` alone on its link, a fleet's simulation with others.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.converged = self.over = self.last = False
        self.elapsed_ms = self.downtime_ms = self.wire_bytes = 0.0
        self.send_cpu_seconds = self.recv_cpu_seconds = 0.0
        self.count = 0
        self._rounds: list[RoundFigures] = []
        self._verdicts: list[Verdict] = []
        self._pages, self._zero_share, self._cost = float(case.ram_pages), case.zero_share, case.whole
        if case.deltas is not None:
            self._cost = case.deltas.first(case.whole)
        self._throttle, self._limit_ms = 0, case.policy.downtime_limit_ms

    def work(self) -> Work:
        """Of the round that comes."""
        case, cost = self.case, self._cost
        scanned = self._pages * PAGE_BYTES
        normal = scanned * (1 - self._zero_share)
        send = (normal * (cost.send_ns + case.beside.send_ns) + scanned * case.beside.scan_ns) / 1e9
        recv = normal * (cost.recv_ns + case.beside.recv_ns) / 1e9
        held = max(
            (send + normal * cost.send_wait_ns / 1e9) / case.resources.channels,
            (recv + normal * cost.recv_wait_ns / 1e9) / case.resources.receivers,
        )
        return Work(normal, normal * cost.wire_share, send, recv, held)

    def took(self, work: Work, milliseconds: float, busy_seconds: float) -> None:
        """The round of this work took so long, of which CPUs or channels were busy for so many seconds."""
        waited = max(0.0, milliseconds / 1e3 - busy_seconds)
        self.send_cpu_seconds += work.send_seconds + self.case.beside.send_waiting * waited
        self.recv_cpu_seconds += work.recv_seconds + self.case.beside.recv_waiting * waited
        self.wire_bytes += work.wire_bytes
        self.elapsed_ms += milliseconds + ROUND_MS
        self.count += 1
        if self.last:
            self._end(milliseconds + ROUND_MS)
        else:
            self._decide(work, milliseconds + ROUND_MS)

    def _decide(self, work: Work, milliseconds: float) -> None:
        case, seconds = self.case, (milliseconds + self.case.sync_ms) / 1e3
        writes = case.activity.mean(case.begun_seconds + (self.elapsed_ms - milliseconds) / 1e3, seconds)
        curve = _at_pace(case.curve, writes * (1 - self._throttle / 100))
        dirty = curve.pages_after(seconds)
        normal = work.normal_bytes / PAGE_BYTES
        self._rounds.append(
            RoundFigures(
                round=len(self._rounds) + 1,
                pages=round(self._pages),
                normal_pages=round(normal),
                zero_pages=round(self._pages - normal),
                wire_bytes=round(work.wire_bytes),
                duration_ms=milliseconds,
                dirty_pages=round(dirty),
                curve=curve,
                throttle_percent=self._throttle,
            )
        )
        verdict = decide(
            case.policy,
            Situation(self._rounds, self._verdicts, self._throttle, self._limit_ms, case.sync_ms),
        )
        self._verdicts.append(verdict)
        self._throttle, self._limit_ms = verdict.throttle_percent, verdict.downtime_limit_ms
        self._pages, self._zero_share, self._cost = dirty, case.written_zero_share, case.written
        if case.deltas is not None:
            self._cost = case.deltas.later(case.written, seconds)
        self.last = verdict.decision is Decision.SWITCH_OVER
        self.over = verdict.decision is Decision.GIVE_UP
        if verdict.decision is Decision.CONTINUE and len(self._rounds) >= MOST_ROUNDS:
            self.over = True
        if self.last and dirty < 1:
            self._end(0.0)

    def _end(self, last_ms: float) -> None:
        self.downtime_ms = last_ms + self.case.sync_ms + SWITCHOVER_MS
        self.elapsed_ms += self.case.sync_ms + SWITCHOVER_MS
        self.converged = self.over = True


def walk(case: Case) -> Outcome:
    """From the first page to the last, alone on its link."""
    steps, have = Steps(case), case.resources
    while not steps.over:
        work = steps.work()
        busy = max(
            work.held_seconds,
            work.send_seconds / max(0.1, have.cpus),
            work.recv_seconds / max(0.1, have.recv_cpus),
            (work.send_seconds + work.recv_seconds) / have.both_cpus if have.both_cpus else 0.0,
        )
        carried = have.link_bytes_per_second  # QEMU lifts its limit for the switchover
        if not steps.last:
            carried = have.carried_bytes_per_second(work.normal_bytes, work.wire_bytes)
        seconds = both_full(busy, work.wire_bytes / carried if carried else 0.0)
        steps.took(work, seconds * 1e3, busy)
    return Outcome(
        *(steps.converged, steps.elapsed_ms, steps.downtime_ms, steps.count, steps.wire_bytes),
        *(steps.send_cpu_seconds, steps.recv_cpu_seconds),
    )


def both_full(busy: float, wire: float) -> float:
    """What a round takes of which CPUs and wire need so long each, by themselves."""
    longest = max(busy, wire)
    return longest * (1 + (min(busy, wire) / longest) ** SHARPNESS) ** (1 / SHARPNESS) if longest else 0.0


def _at_pace(curve: DirtyCurve, pace: float) -> DirtyCurve:
    """Of a guest that writes at so much of its mean."""
    slower = 1 / max(0.001, pace)
    return DirtyCurve(tuple(at * slower for at in curve.seconds), curve.pages, curve.ram_pages)
