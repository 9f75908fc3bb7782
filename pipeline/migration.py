"""The coordinator: set up, rounds, switchover, verify."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from guestmem.dirtylog import SharedDirtyLog
from guestmem.guest import GuestSpec, run_guest
from guestmem.ram import GuestRam
from guestmem.segment import PAGE_BYTES
from guestmem.workload import Workload
from pipeline.accounting import Usage, private_bytes
from pipeline.channel import ChannelPlan, run_channel
from pipeline.codecs import METHODS
from pipeline.codecs.method import CodecSettings
from pipeline.counters import Count, Counters, Totals
from pipeline.errors import FerryError, HostError, NotConverged, RunFailed
from pipeline.memory import check_memory
from pipeline.options import Options
from pipeline.pacing import Wire, paced_packet_pages
from pipeline.packet import Limits as PacketLimits
from pipeline.packet import front_bytes
from pipeline.policy import Decision, Limits, RoundFigures, Verdict, decide
from pipeline.progress import REFRESH_SECONDS, Moment, Progress
from pipeline.queue import PacketQueue
from pipeline.receiver import ReceiverPlan, WrittenMap, run_receiver
from pipeline.rounds import RoundList
from pipeline.verify import first_difference
from pipeline.workers import Crew, Deadline, Worker

DRAIN_STEP_SECONDS = 0.0002
"""How often the barrier looks whether the last packets of a round are applied."""

GUEST_ANSWER_SECONDS = 5.0


@dataclass
class SideFigures:
    """What one side used inside the clock, and the most private memory one of its processes has."""

    usage: Usage = field(default_factory=Usage)
    private_bytes_max: int = 0

    def add(self, usage: Usage, private: int) -> None:
        """One process more."""
        self.usage = self.usage + usage
        self.private_bytes_max = max(self.private_bytes_max, private)


@dataclass
class Measured:
    """Everything a run measured, filled in as it goes; what never came stays None or empty."""

    setup_ms: float | None = None
    prealloc_ms: float | None = None
    total_ms: float | None = None
    downtime_ms: float | None = None
    pages_per_second_peak: float = 0.0
    sent: Totals = field(default_factory=lambda: np.zeros(len(Count), np.int64))
    received: Totals = field(default_factory=lambda: np.zeros(len(Count), np.int64))
    send: SideFigures = field(default_factory=SideFigures)
    recv: SideFigures = field(default_factory=SideFigures)
    rounds: list[RoundFigures] = field(default_factory=list)
    guest: dict[str, Any] = field(default_factory=dict)
    fallback_reason: str = ""
    verified: bool | None = None


class Migration:
    """One run. `measured` can be read whenever `run` has ended, well or not."""

    def __init__(self, options: Options, crew: Crew, progress: Progress) -> None:
        """`options` with method and level resolved."""
        assert options.level is not None
        self._options = options
        self._crew = crew
        self._progress = progress
        self._method = METHODS[options.method]
        self._raw = METHODS["none"]
        self._settings = CodecSettings(
            level=options.level,
            qat_buffer_bytes=options.qat_buffer_bytes,
            qat_fallback=options.qat_fallback,
            decode_on_qat=options.qat_decode == "hardware",
        )
        self._packet_pages = paced_packet_pages(options.packet_pages, options.max_bandwidth)
        self._limits = Limits(options.downtime_limit_ms, options.max_rounds)
        self._deadline = Deadline(0)
        self.measured = Measured()

    def run(self) -> None:
        """Migrate. Raises FerryError; the guest in the source is never harmed."""
        self._check_memory()
        began = time.monotonic()
        self._start_guest()
        self._tell_guest("run")
        try:
            self._start_workers()
        except OSError as error:
            raise HostError(f"cannot set up shared memory: {error}") from error
        prealloc = self.measured.prealloc_ms or 0.0
        self.measured.setup_ms = (time.monotonic() - began) * 1e3 - prealloc
        try:
            self._migrate()
        except NotConverged:
            self._leave_guest_running()
            raise
        if self._options.verify:
            self._verify()

    def _check_memory(self) -> None:
        payload = self._method.bound_bytes(self._packet_pages * PAGE_BYTES, self._settings)
        check_memory(
            self._options.size_bytes,
            images=2,
            queue_bytes=self._options.queue_depth * (payload + front_bytes(self._packet_pages)),
            workers=self._options.channels + self._options.receivers,
        )

    # ---------------------------------------------------------------- set-up

    def _start_guest(self) -> None:
        options = self._options
        spec = GuestSpec(options.size_bytes, options.content(), Workload(options.dirty_rate, options.seed))
        self._progress.say(f"filling {options.size_bytes >> 20} MiB of guest RAM")
        self._guest = self._crew.start("guest", "source", lambda c: run_guest(c, spec))
        _, (ram_fd, log_fd) = self._await(self._guest, "ready")
        self._source = GuestRam(ram_fd, writable=False)
        self._log = SharedDirtyLog(log_fd, self._source.pages)

    def _start_workers(self) -> None:
        options = self._options
        self._destination = GuestRam.create(options.size_bytes, "destination")
        self._rounds = RoundList(self._source.pages)
        self._queue = PacketQueue(
            options.queue_depth,
            front_bytes(self._packet_pages),
            max(
                self._method.bound_bytes(self._packet_pages * PAGE_BYTES, self._settings),
                self._packet_pages * PAGE_BYTES,
            ),
        )
        self._sent = Counters(options.channels)
        self._received = Counters(options.receivers)
        self._progress.say(
            f"starting {options.channels} channels and {options.receivers} receivers"
            + (", giving the destination its pages" if options.prealloc else "")
        )
        self._receivers = self._start_receivers()
        self._channels = self._start_channels()
        reasons = [self._await(worker, "ready")[0] for worker in self._channels]
        ready = [self._await(worker, "ready")[0] for worker in self._receivers]
        if options.prealloc:
            self.measured.prealloc_ms = max(message["prealloc_ms"] for message in ready)
        self._say_fallback([str(message["fallback_reason"]) for message in reasons + ready])

    def _start_channels(self) -> list[Worker]:
        options = self._options
        wire = Wire(options.max_bandwidth)
        plans = [
            ChannelPlan(
                number=number,
                source=self._source,
                rounds=self._rounds,
                queue=self._queue,
                counters=self._sent,
                wire=wire,
                method=self._method,
                raw=self._raw,
                settings=self._settings,
                packet_pages=self._packet_pages,
            )
            for number in range(options.channels)
        ]
        return [
            self._crew.start(f"channel {plan.number}", "send", functools.partial(run_channel, plan=plan))
            for plan in plans
        ]

    def _start_receivers(self) -> list[Worker]:
        options = self._options
        written = WrittenMap(self._source.pages)
        limits = PacketLimits(
            ram_pages=self._source.pages,
            packet_pages=self._packet_pages,
            payload_bytes=self._queue.payload_bytes,
            channels=options.channels,
            method_codes=frozenset({self._method.code, self._raw.code}),
            raw_code=self._raw.code,
        )
        plans = [
            ReceiverPlan(
                number=number,
                receivers=options.receivers,
                destination=self._destination,
                written=written,
                rounds=self._rounds,
                queue=self._queue,
                counters=self._received,
                method=self._method,
                raw=self._raw,
                settings=self._settings,
                limits=limits,
                prealloc=options.prealloc,
            )
            for number in range(options.receivers)
        ]
        return [
            self._crew.start(f"receiver {plan.number}", "recv", functools.partial(run_receiver, plan=plan))
            for plan in plans
        ]

    def _say_fallback(self, reasons: list[str]) -> None:
        given = sorted({reason for reason in reasons if reason})
        if given:
            self.measured.fallback_reason = ", ".join(given)
            self._progress.warn(
                f"no QAT device ({self.measured.fallback_reason}): "
                "compressing in software (ISA-L) into the same GZIP_EXT members"
            )

    # ---------------------------------------------------------------- the clock

    def _migrate(self) -> None:
        self._deadline = Deadline(self._options.timeout_seconds)
        used_before = Usage.now()
        self._began = self._sampled_at = time.monotonic()
        self._sampled_pages = 0
        try:
            last = self._precopy()
            self._switch_over(last)
        finally:
            self._sample(self._sent.totals())
            ended = time.monotonic()
            self.measured.total_ms = (ended - self._began) * 1e3
            self.measured.sent = self._sent.totals()
            self.measured.received = self._received.totals()
        self.measured.send.add(Usage.now() - used_before, private_bytes())
        self._finish_workers()

    def _precopy(self) -> int:
        """Rounds with the guest running; returns the number of the last one."""
        self._log.sync(self._rounds.pages)
        pages = self._rounds.list_all()
        number = 0
        while True:
            number += 1
            verdict = self._round(number, pages)
            self._progress.say(f"round {number}: {verdict.decision.value}: {verdict.reason}")
            if verdict.decision is Decision.SWITCH_OVER:
                return number
            if verdict.decision is Decision.GIVE_UP:
                raise NotConverged(f"did not converge: {verdict.reason}; the guest runs on")
            pages = self._log.sync(self._rounds.pages)

    def _switch_over(self, last: int) -> None:
        paused_at = time.monotonic()
        self._tell_guest("pause")
        pages = self._log.sync(self._rounds.pages)
        self._progress.say(f"switchover: the guest is paused, {pages} pages are left")
        if pages:
            self._round(last + 1, pages)
        self.measured.downtime_ms = (time.monotonic() - paused_at) * 1e3

    def _round(self, number: int, pages: int) -> Verdict:
        """Send the first `pages` of the list, wait until all are applied, and judge."""
        began = time.monotonic()
        before = self._sent.totals()
        self._rounds.begin(number, pages)
        for channel in self._channels:
            self._crew.tell(channel, {"kind": "round"})
        waiting = list(self._channels)
        while waiting:
            waiting = [worker for worker in waiting if self._crew.take(worker, "sent") is None]
            if waiting:
                self._step(REFRESH_SECONDS)
                self._show(number, pages)
        self._drain()
        duration = time.monotonic() - began
        pending = self._log.count()
        moved = self._sent.totals() - before
        self.measured.rounds.append(
            RoundFigures(
                round=number,
                pages=pages,
                normal_pages=int(moved[Count.NORMAL_PAGES]),
                zero_pages=int(moved[Count.ZERO_PAGES]),
                wire_bytes=int(moved[Count.WIRE_BYTES]),
                duration_ms=duration * 1e3,
                dirty_pages_per_second=pending / duration,
            )
        )
        return decide(self.measured.rounds, pending, self._limits)

    def _drain(self) -> None:
        """The barrier: every packet sent is applied before anything of the next round is sent."""
        sent = int(self._sent.totals()[Count.PACKETS])
        looks = 0
        while int(self._received.totals()[Count.PACKETS]) != sent:
            looks += 1
            if looks % 50 == 0:
                self._step(0.0)
            time.sleep(DRAIN_STEP_SECONDS)

    def _step(self, timeout_seconds: float) -> None:
        """Wait for something to happen, within the user's time limit."""
        self._crew.wait(timeout_seconds)
        if self._deadline.passed():
            raise NotConverged(
                f"did not converge within --timeout {self._options.timeout_seconds:g} seconds "
                f"(round {self._rounds.number}); the guest runs on"
            )

    def _show(self, number: int, pages: int) -> None:
        sent = self._sent.totals()
        rate = self._sample(sent)
        if rate is None:
            return
        wire = int(sent[Count.WIRE_BYTES])
        done = 1 - self._rounds.unclaimed() / pages if pages else 1.0
        self._progress.show(
            Moment(
                round=number,
                percent=100 * done,
                guest_megabytes_per_second=rate * PAGE_BYTES / 1e6,
                ratio=int(sent[Count.NORMAL_PAGES]) * PAGE_BYTES / wire if wire else 0.0,
                dirty_pages=self._log.count(),
            )
        )

    def _sample(self, sent: Totals) -> float | None:
        """Pages per second since the last sample, kept when it is the peak; None within 100 ms."""
        now = time.monotonic()
        elapsed = now - self._sampled_at
        if elapsed < REFRESH_SECONDS:
            return None
        pages = int(sent[Count.NORMAL_PAGES] + sent[Count.ZERO_PAGES])
        rate = (pages - self._sampled_pages) / elapsed
        self._sampled_at, self._sampled_pages = now, pages
        self.measured.pages_per_second_peak = max(self.measured.pages_per_second_peak, rate)
        return rate

    def _finish_workers(self) -> None:
        for side, workers in (
            (self.measured.send, self._channels),
            (self.measured.recv, self._receivers),
        ):
            for worker in workers:
                worker.leaving = True
                self._crew.tell(worker, {"kind": "finish"})
            for worker in workers:
                message, _ = self._await(worker, "usage")
                used = {name: message[name] for name in Usage.__dataclass_fields__}
                side.add(Usage(**used), int(message["private_bytes"]))

    # ---------------------------------------------------------------- the guest

    def _tell_guest(self, kind: str) -> None:
        """Tell the guest and wait until it has done so. Raises RunFailed when it does not answer."""
        self._crew.tell(self._guest, {"kind": kind})
        deadline = Deadline(GUEST_ANSWER_SECONDS)
        while not self._guest.inbox:
            self._crew.wait(REFRESH_SECONDS)
            if deadline.passed():
                raise RunFailed(f"the guest did not answer {kind!r} for {GUEST_ANSWER_SECONDS} s")
        message, _ = self._guest.inbox.pop(0)
        seconds = float(message["written_seconds"])
        self.measured.guest = {
            "state": message["kind"],
            "pages_written": message["pages_written"],
            "written_seconds": seconds,
            "written_bytes_per_second": (message["pages_written"] * PAGE_BYTES / seconds if seconds else 0.0),
        }

    def _leave_guest_running(self) -> None:
        """After giving up: the guest runs, and has said so."""
        self._tell_guest("run")

    def _await(self, worker: Worker, kind: str) -> tuple[dict[str, Any], list[int]]:
        while (found := self._crew.take(worker, kind)) is None:
            self._crew.wait(REFRESH_SECONDS)
        return found

    # ---------------------------------------------------------------- the proof

    def _verify(self) -> None:
        self._progress.say("comparing both images")
        between: Callable[[], None] = functools.partial(self._crew.wait, 0)
        page = first_difference(self._source, self._destination, between)
        self.measured.verified = page is None
        if page is not None:
            raise RunFailed(f"the copy is not the source: page {page} differs")


def status_of(error: FerryError | None) -> str:
    """The result's `status` for how a run ended."""
    return "completed" if error is None else error.status
