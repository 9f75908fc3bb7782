"""A schedule, played through: every round of every VM, over shared links, in SimPy's time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from guestmem.page import PAGE_BYTES
from pipeline.forecast.rounds import Steps
from tools.evacuate.admission import Admission, Asked, Start
from tools.evacuate.fabric import Fabric
from tools.evacuate.network import Flow, Network
from tools.evacuate.plan_file import Plan
from tools.evacuate.work import Job, demand_of, seconds_about

if TYPE_CHECKING:  # of the extra fleet, and asked for when it is used
    import simpy

NO_LIMIT = float("inf")
Watch = Callable[[int, float, float], None]


@dataclass(frozen=True)
class Strategy:
    """In which order jobs start, and when one may: links and CPUs filled up to `fill` times what they carry
    (infinite: never asked), streams out of and into a host, and migrations in all. With `patience` above 0
    what is left of a link goes to a job with a limit (`tools.evacuate.admission`)."""

    name: str
    order: tuple[int, ...]
    fill: float
    out_of_a_host: float
    into_a_host: float
    in_all: float
    patience: float = 0.0


@dataclass(frozen=True)
class Move:
    """What became of a job. Seconds since the plan began; `attempts` 2 where the first did not converge."""

    job: int
    start_seconds: float
    end_seconds: float
    downtime_start_seconds: float
    downtime_seconds: float
    wire_bytes: float
    cpu_seconds: float
    moved: bool
    attempts: int
    limit_bytes_per_second: float | None

    @property
    def seconds(self) -> float:
        return self.end_seconds - self.start_seconds


@dataclass(frozen=True)
class Played:
    """All moves, in the order in which they started."""

    strategy: Strategy
    total_seconds: float
    moves: tuple[Move, ...]

    @property
    def sum_seconds(self) -> float:
        return sum(move.seconds for move in self.moves)

    @property
    def left(self) -> int:
        """Jobs that could not be moved."""
        return sum(not move.moved for move in self.moves)


class Question:
    """Jobs of a plan, with what each asks for; made once, played often."""

    def __init__(self, plan: Plan, fabric: Fabric, jobs: Sequence[Job]) -> None:
        self.plan, self.fabric, self.jobs = plan, fabric, jobs
        at = len(fabric.capacity)
        self._host_slot = {name: at + number for number, name in enumerate(plan.hosts)}
        self._slots = at + len(plan.hosts) + 1
        self.asked = [self._asked(job) for job in jobs]

    def _asked(self, job: Job) -> Asked:
        work = Steps(job.case).work()
        demand = demand_of(job, work, self.fabric, job.vm.size_bytes)
        streams = (self._slots - 1, *(self._host_slot[host.name] for host in (job.source, job.destination)))

        def seconds_at(rate: float) -> float:
            return seconds_about(job.case.curve, work, demand.wire_bytes, rate)

        unrest = job.alone_wire_bytes / demand.wire_bytes
        return Asked(
            streams, demand.uses, demand.most_bytes_per_second, job.alone_wire_bytes, unrest, seconds_at
        )

    def admission(self, strategy: Strategy) -> Admission:
        """The strategy's limits on these jobs."""
        limits = [strategy.fill * one for one in self.fabric.capacity]
        for host in self.plan.hosts.values():
            limits.append(strategy.out_of_a_host if host.empty else strategy.into_a_host)
        return Admission(self.asked, [*limits, strategy.in_all], strategy.order, strategy.patience)


class _Run:
    def __init__(
        self, question: Question, strategy: Strategy, jobs: Sequence[Job], link: float, watch: Watch | None
    ) -> None:
        self._question, self._jobs = question, jobs
        self._limits = question.plan.limits
        import simpy

        self._clock = simpy.Environment()
        capacity = [
            one.capacity * (link if one.kind in ("up", "down") else 1.0) for one in question.fabric.resources
        ]
        self._network = Network(self._clock, capacity, watch)
        self._admission = question.admission(strategy)
        self._strategy = strategy
        self._moves: list[Move] = []
        self._again: list[Move] = []

    def play(self, until: float | None) -> Played | None:
        self._begin(self._admission.first())
        if not self._runs_out(until, 0):
            return None
        for count, failed in enumerate(sorted(self._again, key=lambda move: move.job), 1):
            self._clock.process(self._once_more(failed))
            if not self._runs_out(until, count):
                return None
        moves = sorted(self._moves, key=lambda move: (move.start_seconds, move.job))
        return Played(self._strategy, max((one.end_seconds for one in moves), default=0.0), tuple(moves))

    def _runs_out(self, until: float | None, more: int) -> bool:
        """Whether all are through, with so many second tries, before it is so late."""
        if until is not None and until <= self._clock.now:
            return False
        self._clock.run(until)
        return len(self._moves) + len(self._again) - more == len(self._jobs)

    def _begin(self, starts: list[Start]) -> None:
        for start in starts:
            self._clock.process(self._in_turn(start))

    def _in_turn(self, start: Start) -> Generator[simpy.Event, None, None]:
        job = start.job
        move = yield from self._migrate(job, self._jobs[job], start.limit, attempts=1)
        if move.moved or self._limits.policy.converge == "throttle":
            self._moves.append(move)
        else:
            self._again.append(move)
        self._begin(self._admission.release(job))

    def _once_more(self, failed: Move) -> Generator[simpy.Event, None, None]:
        """When all others are through, with nobody beside it, and throttled: as execution does it."""
        job = self._jobs[failed.job]
        policy = replace(job.case.policy, converge="throttle")
        slowed = replace(job, case=replace(job.case, policy=policy))
        move = yield from self._migrate(failed.job, slowed, None, attempts=2)
        self._moves.append(replace(move, wire_bytes=move.wire_bytes + failed.wire_bytes))

    def _migrate(
        self, number: int, job: Job, limit: float | None, attempts: int
    ) -> Generator[simpy.Event, None, Move]:
        clock, flow, steps = self._clock, Flow(job.option.channels), Steps(job.case)
        started = first_page = clock.now
        if self._limits.start_seconds:
            yield clock.timeout(self._limits.start_seconds)
            first_page = clock.now
        scanned: float = job.vm.size_bytes
        while not steps.over:
            work = steps.work()
            begun = clock.now
            demand = demand_of(job, work, self._question.fabric, scanned)
            yield self._network.carry(flow, demand if limit is None else demand.limited(limit))
            steps.took(work, (clock.now - begun) * 1e3, work.held_seconds)
            scanned = PAGE_BYTES
        self._network.leave(flow)
        # The barriers of rounds and the switchover carry nothing.
        yield clock.timeout(max(0.0, steps.elapsed_ms / 1e3 - (clock.now - first_page)))
        downtime = steps.downtime_ms / 1e3
        ended = clock.now
        if self._limits.end_seconds:
            yield clock.timeout(self._limits.end_seconds)
        cpu = steps.send_cpu_seconds + steps.recv_cpu_seconds
        return Move(
            *(number, started, ended, ended - downtime, downtime, steps.wire_bytes, cpu),
            *(steps.converged, attempts, limit),
        )


def play(
    question: Question,
    strategy: Strategy,
    jobs: Sequence[Job] | None = None,
    link: float = 1.0,
    watch: Watch | None = None,
) -> Played:
    """`jobs` stand for the question's (a draw), `link` for what links carry beside what the plan says."""
    played = _Run(question, strategy, question.jobs if jobs is None else jobs, link, watch).play(None)
    assert played is not None
    return played


def play_until(question: Question, strategy: Strategy, seconds: float) -> Played | None:
    """None where it takes longer than that, which is found out sooner."""
    return _Run(question, strategy, question.jobs, 1.0, None).play(seconds)
