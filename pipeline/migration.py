"""The coordinator: set up, rounds, switchover, verify."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from guestmem.guest import GuestSpec
from guestmem.ram import GuestRam
from guestmem.segment import PAGE_BYTES
from guestmem.selfcheck import inconsistency
from pipeline.accounting import Usage, private_bytes
from pipeline.channel import ChannelPlan, run_channel
from pipeline.codecs import METHODS
from pipeline.codecs.method import CodecSettings
from pipeline.counters import Count, Counters, Totals
from pipeline.curve import CurveRecorder
from pipeline.errors import FerryError, HostError, NotConverged, RunFailed
from pipeline.guestlink import GuestLink
from pipeline.measured import Downtime, Measured
from pipeline.memory import check_memory
from pipeline.options import Options
from pipeline.pacing import Wire, paced_packet_pages
from pipeline.packet import Limits as PacketLimits
from pipeline.packet import front_bytes
from pipeline.policy import Decision, RoundFigures, Situation, Verdict, decide
from pipeline.progress import REFRESH_SECONDS, Moment, Progress
from pipeline.queue import PacketQueue
from pipeline.receiver import ReceiverPlan, WrittenMap, run_receiver
from pipeline.rounds import RoundList
from pipeline.verify import first_difference
from pipeline.workers import Crew, Deadline, Worker

DRAIN_STEP_SECONDS = 0.0002
"""How often the barrier looks whether the last packets of a round are applied."""

AFTER_SECONDS = 1.1
"""How long a visited guest runs on before it is asked for its slowest second afterwards."""

JUDGED_SECONDS = 1.0
HELD_SHARE = 0.95
"""A guest that reaches less of the rate it was asked for could not hold it."""


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
        self._throttle_percent = 0
        self._released: float | None = None
        self._downtime_limit_ms = options.policy.downtime_limit_ms
        self._deadline = Deadline(0)
        self.measured = Measured()

    def run(self) -> None:
        """Migrate. Raises FerryError; the guest in the source is never harmed."""
        began = time.monotonic()
        self._open_guest()
        try:
            self._start_workers()
        except OSError as error:
            raise HostError(f"cannot set up shared memory: {error}") from error
        prealloc = self.measured.prealloc_ms or 0.0
        self.measured.setup_ms = (time.monotonic() - began) * 1e3 - prealloc
        try:
            self._migrate()
        except NotConverged:
            self._release_guest()
            raise
        self._verify()
        if self._options.attach is not None:
            self._release_guest()
        else:
            self._note_guest()

    def _check_memory(self, size_bytes: int, images: int) -> None:
        payload = self._method.bound_bytes(self._packet_pages * PAGE_BYTES, self._settings)
        check_memory(
            size_bytes,
            images,
            queue_bytes=self._options.queue_depth * (payload + front_bytes(self._packet_pages)),
            workers=self._options.channels + self._options.receivers,
        )

    # ---------------------------------------------------------------- set-up

    def _open_guest(self) -> None:
        """A guest that writes: one's own, or the one that is there."""
        options = self._options
        if options.attach is not None:
            self._link = GuestLink.attach(self._crew, options.attach, options.dirty_log)
            self._check_memory(self._link.source.size_bytes, images=1)
        else:
            assert options.guest is not None
            size = options.guest.size_bytes
            self._check_memory(size, images=2)
            self._progress.say(f"filling {size >> 20} MiB of guest RAM")
            spec = GuestSpec(size, options.guest.content(), options.guest.workload())
            self._link = GuestLink.start(self._crew, spec, options.dirty_log)
        self._source, self._log = self._link.source, self._link.log
        self.measured.size_bytes = self._source.size_bytes
        self.measured.dirty_log = self._link.log_kind
        if options.verify in ("invariant", "both") and not self._link.self_checking:
            raise HostError(
                f"--verify {options.verify}: this guest does not do the self-check workload "
                "(--preset self-check), so its copy cannot be judged without the source"
            )
        self._link.order("run")

    def _start_workers(self) -> None:
        options = self._options
        self._destination = GuestRam.create(self._source.size_bytes, "destination")
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
        self._curve = CurveRecorder(self._source.pages)
        try:
            last = self._precopy()
            self._switch_over(last)
        finally:
            self._sample(self._sent.totals())
            self._ended = time.monotonic()
            self.measured.total_ms = (self._ended - self._began) * 1e3
            self.measured.sent = self._sent.totals()
            self.measured.received = self._received.totals()
        self.measured.send.add(Usage.now() - used_before, private_bytes())
        self._finish_workers()

    def _precopy(self) -> int:
        """Rounds with the guest running; returns the number of the last one."""
        self._sync()
        pages = self._rounds.list_all()
        number = 0
        while True:
            number += 1
            self._round(number, pages)
            verdict = self._judge()
            self._progress.say(f"round {number}: {verdict.decision.value}: {verdict.reason}")
            if verdict.decision is Decision.SWITCH_OVER:
                return number
            if verdict.decision is Decision.GIVE_UP:
                raise NotConverged(f"did not converge: {verdict.reason}; the guest runs on")
            pages = self._sync()

    def _sync(self) -> int:
        """Fetch and clear the dirty log into the round's list; how many pages."""
        count = self._log.sync(self._rounds.pages)
        self._synced_at = time.monotonic()
        self._curve.restart()
        return count

    def _judge(self) -> Verdict:
        measured = self.measured
        verdict = decide(
            self._options.policy,
            Situation(measured.rounds, measured.verdicts, self._throttle_percent, self._downtime_limit_ms),
        )
        measured.verdicts.append(verdict)
        self._downtime_limit_ms = verdict.downtime_limit_ms
        if verdict.throttle_percent != self._throttle_percent:
            self._throttle_percent = verdict.throttle_percent
            self._link.order("throttle", percent=verdict.throttle_percent)
        return verdict

    def _switch_over(self, last: int) -> None:
        """The guest stands still: from the request to pause until the last page is applied."""
        paused_at = time.monotonic()
        self._link.order("pause")
        pages = self._sync()
        synced_at = sent_at = applied_at = time.monotonic()
        self._progress.say(f"switchover: the guest is paused, {pages} pages are left")
        if pages:
            sent_at = self._round(last + 1, pages)
            applied_at = time.monotonic()
        ended_at = time.monotonic()
        self.measured.downtime = Downtime(
            last_sync_ms=(synced_at - paused_at) * 1e3,
            last_send_ms=(sent_at - synced_at) * 1e3,
            last_apply_ms=(applied_at - sent_at) * 1e3,
            hand_over_ms=(ended_at - applied_at) * 1e3,
        )

    def _round(self, number: int, pages: int) -> float:
        """Send the first `pages` of the list and wait until all are applied; when all were sent."""
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
        sent_at = time.monotonic()
        self._drain()
        duration = time.monotonic() - began
        dirty = self._note_dirty()
        moved = self._sent.totals() - before
        self.measured.rounds.append(
            RoundFigures(
                round=number,
                pages=pages,
                normal_pages=int(moved[Count.NORMAL_PAGES]),
                zero_pages=int(moved[Count.ZERO_PAGES]),
                wire_bytes=int(moved[Count.WIRE_BYTES]),
                duration_ms=duration * 1e3,
                dirty_pages=dirty,
                curve=self._curve.curve(),
                throttle_percent=self._throttle_percent,
            )
        )
        return sent_at

    def _note_dirty(self) -> int:
        """Pages dirty now, kept as a point of the guest's dirty curve."""
        dirty = self._log.count()
        self._curve.add(time.monotonic() - self._synced_at, dirty)
        return dirty

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
        moment = Moment(
            round=number,
            percent=100 * done,
            guest_megabytes_per_second=rate * PAGE_BYTES / 1e6,
            ratio=int(sent[Count.NORMAL_PAGES]) * PAGE_BYTES / wire if wire else 0.0,
            dirty_pages=self._note_dirty(),
        )
        self._progress.show(moment.line())

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

    def _await(self, worker: Worker, kind: str) -> tuple[dict[str, Any], list[int]]:
        while (found := self._crew.take(worker, kind)) is None:
            self._crew.wait(REFRESH_SECONDS)
        return found

    # ---------------------------------------------------------------- the guest, afterwards

    def _release_guest(self) -> None:
        """The guest runs in the source at full speed, and has said so."""
        self._link.order("throttle", percent=0)
        self._link.order("run")
        self._released = time.monotonic()
        if self._options.attach is not None:
            self._link.rest(AFTER_SECONDS)
        self._note_guest()

    def _note_guest(self) -> None:
        """The guest's own view: what it reached, and its slowest second in each part of the run."""
        link = self._link
        slowest = {
            "before": link.slowest_second(0.0, self._began - 1),
            "during": link.slowest_second(self._began, self._ended - 1),
            "after": None,
        }
        if self._released is not None:
            slowest["after"] = link.slowest_second(self._released + 1, time.monotonic())
        state = link.state
        seconds = float(state["written_seconds"])
        reached = state["written_bytes"] / seconds if seconds else 0.0
        self.measured.guest = {
            "state": state["state"],
            "writes": state["writes"],
            "written_bytes": state["written_bytes"],
            "written_seconds": seconds,
            "bytes_per_second_reached": reached,
            "slowest_second_bytes": slowest,
        }
        self._say_rate(reached)

    def _say_rate(self, reached: float) -> None:
        guest = self._options.guest
        self.measured.guest["rate_held"] = None
        if guest is None or not guest.dirty_rate or self._throttle_percent:
            return
        if self.measured.guest["written_seconds"] < JUDGED_SECONDS:
            return
        self.measured.guest["rate_held"] = reached >= HELD_SHARE * guest.dirty_rate
        if not self.measured.guest["rate_held"]:
            self._progress.warn(
                f"the guest wrote {reached / (1 << 20):.0f} MiB/s, not the "
                f"{guest.dirty_rate / (1 << 20):.0f} MiB/s asked for: one process cannot hold that here"
            )

    # ---------------------------------------------------------------- the proof

    def _verify(self) -> None:
        how = self._options.verify
        between: Callable[[], None] = functools.partial(self._crew.wait, 0)
        if how in ("invariant", "both"):
            self._progress.say("checking the copy's invariant")
            wrong = inconsistency(self._destination)
            self.measured.verification["invariant"] = wrong is None
            if wrong is not None:
                raise RunFailed(f"the copy is not of one moment: {wrong}")
        if how in ("images", "both"):
            self._progress.say("comparing both images")
            page = first_difference(self._source, self._destination, between)
            self.measured.verification["images"] = page is None
            if page is not None:
                raise RunFailed(f"the copy is not the source: page {page} differs")


def status_of(error: FerryError | None) -> str:
    """The result's `status` for how a run ended."""
    return "completed" if error is None else error.status
