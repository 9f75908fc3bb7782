"""The coordinator: set up, rounds, switchover, verify."""

from __future__ import annotations

import functools
import logging
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from guestmem.guest import GuestSpec
from guestmem.page import PAGE_BYTES
from guestmem.ram import PageNumbers
from guestmem.workload import HELD_SHARE
from pipeline.codecs.qatzip import without_device
from pipeline.dirty_curve import CurveRecorder
from pipeline.errors import HostError, NotConverged, RunFailed, one_line
from pipeline.options import AUTO, CHECKS, Options, has_queue
from pipeline.packets.counters import Count, Totals, counts_of
from pipeline.policy import Decision, RoundFigures, Situation, Verdict, decide
from pipeline.processes.deadline import Deadline
from pipeline.processes.limits import limit_of
from pipeline.processes.memory import STRONG_ZSTD_LEVEL, check_huge_pages, check_memory, worker_bytes
from pipeline.processes.supervisor import Supervisor
from pipeline.processes.usage import Usage, private_bytes
from pipeline.progress import REFRESH_SECONDS, Progress, Stage
from pipeline.report.downtime import StandingStill
from pipeline.report.metrics import Metrics
from pipeline.source.delta_budget import with_delta_budget
from pipeline.source.guest_client import GuestClient
from pipeline.source.send_side import PacketLayout
from pipeline.source.written_since import WrittenSince
from pipeline.transports import open_transport
from pipeline.transports.base import NO_PAGES, RoundOutcome, Transport

COUNT_SHARE = 0.01
"""Of the coordinator's time that counting dirty pages may take while a round goes on: the count grows
with the guest (4 ms in 8 GiB)."""

AFTER_SECONDS = 1.1
"""How long a visited guest runs on before it is asked for its slowest second afterwards."""

MAX_SWITCHOVERS = 3
"""So many may take longer than the downtime limit before the run is given up."""

JUDGED_SECONDS = 1.0
"""A guest that ran for less than this is not judged by the rate it reached."""

PLANNED_BYTES_PER_SECOND = {
    Stage.FILLING: 600e6,
    Stage.PREALLOC: 1.2e9,
    Stage.ROUNDS: 600e6,
    Stage.VERIFYING: 4e9,
}
"""What the progress bar takes for granted until it has seen better: one core of a server of 2023."""

WRONG = {"invariant": "the copy is not of one moment", "images": "the copy is not the source"}

log = logging.getLogger("ramferry.migration")


class Migration:
    """One run. `metrics` is filled in as it goes on, and holds whatever was measured when it has failed."""

    def __init__(
        self,
        options: Options,
        supervisor: Supervisor,
        progress: Progress,
        metrics: Metrics,
        before: Callable[[GuestClient], str] | None = None,
    ) -> None:
        """`options` with method and level resolved. `before` looks at the guest when all is ready, in front
        of the clock, and says what it found."""
        self._before = before
        self.metrics = metrics
        self._options = options
        self._supervisor = supervisor
        self._progress = progress
        self._throttle_percent = 0
        self._released: float | None = None
        self._downtime_limit_ms = options.policy.downtime_limit_ms
        self._deadline = Deadline(0)
        self._dirty_pages, self._count_again_at = 0, 0.0
        self._sync_ms = 0.0
        self._verdict: Verdict | None = None
        self._still: StandingStill | None = None
        self._missing: PageNumbers = NO_PAGES
        self._dirty_at_pause = 0
        self._transport: Transport | None = None
        self._guest_or_none: GuestClient | None = None

    def run(self) -> None:
        """Migrate. Raises FerryError; the guest in the source is never harmed."""
        try:
            self._run()
        except Exception as error:
            self._let_go()
            self._abandon(one_line(error))
            raise

    def _run(self) -> None:
        began = time.monotonic()
        self._open_guest()
        transport = self._transport = self._open_transport()
        self._sending, self._rounds = transport.sending, transport.sending.rounds
        self._await_ready(transport)
        self._look_for_hot_pages()
        prealloc = self.metrics.prealloc_ms or 0.0
        self.metrics.setup_ms = (time.monotonic() - began) * 1e3 - prealloc
        if self._before is not None:
            self._progress.say(self._before(self._guest))
        try:
            self._migrate(transport)
        except NotConverged:
            self._release_guest()
            if self._options.attach is not None:
                self._rest_visited()
            self._note_guest()
            raise
        self._verify(transport)
        transport.commit(self._dirty_at_pause)
        self._finish(transport)
        if self._options.attach is not None:
            self._rest_visited()
        self._note_guest()

    def _look_for_hot_pages(self) -> None:
        """Where pages are kept for deltas: which come back, and how much of them changes."""
        keeping = self._sending.keeping
        if keeping is None:
            return
        self.metrics.deltas = keeping.record
        if self._log.count():
            found = keeping.look(self._source, self._log, self._rounds.pages, self._guest.rest)
            self._progress.say(f"looking for pages that come back: {found}")

    def _let_go(self) -> None:
        """The run has failed: before anything else the guest runs, at full speed."""
        if self._guest_or_none is not None:
            self._guest_or_none.let_go()
            log.debug("the guest is let go")
        if self._still is not None:
            self.metrics.returned_ms.append(self._still.total_ms())

    def _abandon(self, why: str) -> None:
        """The run has failed: the other side should know."""
        log.debug("abandoned: %s", why)
        if self._transport is not None:
            self._supervisor.forget_cancel()
            self._transport.abandon(why)

    # ---------------------------------------------------------------- set-up

    def _open_guest(self) -> None:
        """A guest that writes: this run's own, or one that is there."""
        options = self._options
        self._layout = PacketLayout.of(options)
        if options.attach is not None:
            self._guest = GuestClient.attach(self._supervisor, options.attach, options.dirty_log)
            self._options = options = with_delta_budget(options, self._guest.source.size_bytes)
            self._check_memory(self._guest.source.size_bytes, 1, "a copy of the guest does not fit here")
            self._plan(self._guest.source.size_bytes)
        else:
            guest = options.guest
            assert guest is not None
            size = guest.size_bytes
            self._options = options = with_delta_budget(options, size)
            self._check_memory(size, 2, guest.advice)
            self._plan(size)
            self._progress.say(f"filling {size >> 20} MiB of guest RAM")
            spec = GuestSpec(size, guest.content(), guest.workload, huge_pages=options.huge_pages != "off")
            self._guest = GuestClient.start(
                self._supervisor,
                spec,
                options.dirty_log,
                functools.partial(self._progress.reach, Stage.FILLING),
            )
        self._guest_or_none = self._guest
        self._source, self._log = self._guest.source, self._guest.log
        self.metrics.size_bytes = self._source.size_bytes
        self.metrics.dirty_log = self._guest.log_kind
        self.metrics.source_huge_bytes = self._guest.huge_bytes
        self.metrics.source_nodes = self._guest.bytes_by_node
        if options.guest is not None:
            check_huge_pages(options.huge_pages, self._guest.huge_bytes, self._source.size_bytes)
        if options.verify and "invariant" in CHECKS[options.verify] and not self._guest.self_checking:
            raise HostError(
                f"--verify {options.verify}: this guest does not do the self-check workload "
                "(--preset self-check), so its copy cannot be judged without the source"
            )
        self._guest.order("run")

    def _check_memory(self, size_bytes: int, images: int, advice: str) -> None:
        options = self._options
        in_queue = options.queue_depth if has_queue(options.transport, options.method) else 0
        queue = in_queue * self._layout.slot_bytes
        strong = options.method == AUTO or (
            options.method == "zstd" and (options.level or 0) >= STRONG_ZSTD_LEVEL
        )
        packet = self._layout.pages * PAGE_BYTES
        private = options.channels * worker_bytes(packet, strong=strong)
        private += options.receivers * worker_bytes(packet)
        workers = options.channels + options.receivers
        kept = options.delta_bytes or 0
        check_memory(size_bytes, images, queue + kept, workers, advice, private_bytes=private)

    def _plan(self, size_bytes: int) -> None:
        """What each stage will take, as far as that is known."""
        options = self._options
        skipped = {Stage.FILLING: options.guest is None, Stage.PREALLOC: not options.prealloc}
        skipped[Stage.VERIFYING] = options.verify is None
        for stage, rate in PLANNED_BYTES_PER_SECOND.items():
            if stage is Stage.ROUNDS and options.max_bandwidth:
                rate = min(rate, 2.0 * options.max_bandwidth)
            self._progress.plan(stage, 0.0 if skipped.get(stage) else size_bytes / rate)

    def _open_transport(self) -> Transport:
        options = self._options
        self._progress.say(
            f"starting {options.channels} channels and {options.receivers} receivers"
            + (", giving the destination its pages" if options.prealloc else "")
        )
        try:
            return open_transport(options, self._layout, self._supervisor, self._source)
        except OSError as error:
            raise limit_of(error) or HostError(f"cannot set up shared memory: {one_line(error)}") from error

    def _await_ready(self, transport: Transport) -> None:
        here, simulated = self._sending.await_ready()
        ready = transport.await_ready(functools.partial(self._progress.reach, Stage.PREALLOC))
        self.metrics.prealloc_ms = ready.prealloc_ms
        if self._options.prealloc:
            self.metrics.destination_huge_bytes = ready.huge_bytes
            check_huge_pages(self._options.huge_pages, ready.huge_bytes, self._source.size_bytes)
        self.metrics.simulated = simulated or ready.simulated
        if self.metrics.simulated:
            self._progress.warn("the QAT device is emulated: its figures are simulated")
        reason = self.metrics.fallback_reason = _joined(here | ready.fallback_reasons)
        if here:
            self._progress.warn(
                f"{without_device(_joined(here))}: compressing in software (ISA-L) into the same GZIP_EXT "
                "members; python -m tools.doctor says why"
            )
        elif reason:
            self._progress.warn(f"recv side: {without_device(reason)}: decompressing in software")

    # ---------------------------------------------------------------- the clock

    def _migrate(self, transport: Transport) -> None:
        self._deadline = Deadline(self._options.timeout_seconds)
        used_before = Usage.now()
        self._began = self._shown_at = time.monotonic()
        self._window = deque([(self._began, 0)])
        self._curve = CurveRecorder(self._source.pages)
        auto = self._sending.auto
        if auto is not None:
            auto.begin()
        try:
            self._carry_over(transport)
        finally:
            self._sample(self._sending.sent.totals())
            self._ended = time.monotonic()
            self.metrics.total_ms = (self._ended - self._began) * 1e3
            self.metrics.sent = counts_of(self._sending.sent.totals())
            self.metrics.received = counts_of(transport.received())
            self.metrics.auto = auto.record() if auto is not None else None
        coordinator = Usage.now() - used_before
        self.metrics.send, self._reasons = self._sending.finish()
        self.metrics.send.add(coordinator, private_bytes())
        self.metrics.coordinator_cpu_seconds = coordinator.cpu_seconds

    def _finish(self, transport: Transport) -> None:
        """End the transport, and take what both of its sides measured."""
        figures = transport.finish()
        self.metrics.send.add(figures.send.usage, figures.send.private_bytes_max)
        self.metrics.recv, self.metrics.received = figures.recv, counts_of(figures.received)
        self.metrics.transport = figures.record
        self._say_busy(_joined(self._reasons | figures.fallback_reasons))

    def _say_busy(self, reason: str) -> None:
        """A device that answered at first, but not always."""
        if reason and not self.metrics.fallback_reason:
            self.metrics.fallback_reason = reason
            software = self.metrics.sent.qat_software + self.metrics.received.qat_software
            self._progress.warn(f"the QAT device did not do all ({reason}): {software} requests in software")

    def _carry_over(self, transport: Transport) -> None:
        """Precopy and switchover; over again when the guest had to run on."""
        self._sync()
        number, pages = 0, self._rounds.list_all()
        while True:
            number = self._precopy(transport, number, pages)
            number, complete = self._switch_over(transport, number)
            if complete:
                return
            pages = self._sync()

    def _precopy(self, transport: Transport, number: int, pages: int) -> int:
        """Rounds with the guest running, after round `number`; returns the number of the last one."""
        while True:
            number += 1
            self._round(transport, number, pages)
            verdict = self._judge()
            self._progress.say(f"round {number}: {verdict.decision.value}: {verdict.reason}")
            if verdict.decision is Decision.SWITCH_OVER:
                return number
            if verdict.decision is Decision.GIVE_UP:
                raise NotConverged(f"did not converge: {verdict.reason}; the guest runs on")
            pages = self._sync()

    def _sync(self) -> int:
        """Fetch and clear the dirty log into the round's list, with what went missing; how many pages."""
        began = time.monotonic()
        count = self._of_living_guest(lambda: self._log.sync(self._rounds.pages))
        self._sync_ms = (time.monotonic() - began) * 1e3
        if len(self._missing):
            both = np.union1d(self._rounds.pages[:count], self._missing)
            self._rounds.pages[: len(both)] = both
            count, self._missing = len(both), NO_PAGES
        self._synced_at = time.monotonic()
        self._curve.restart()
        return count

    def _of_living_guest(self, ask: Callable[[], int]) -> int:
        """What the dirty log says. The kernel's log ends with its guest: then that is the news."""
        try:
            return ask()
        except ProcessLookupError:
            self._supervisor.wait(REFRESH_SECONDS)
            raise RunFailed("source side: the guest is gone") from None

    def _judge(self) -> Verdict:
        metrics = self.metrics
        verdict = decide(
            self._options.policy,
            Situation(
                metrics.rounds,
                metrics.verdicts,
                self._throttle_percent,
                self._downtime_limit_ms,
                self._sync_ms,
            ),
        )
        metrics.verdicts.append(verdict)
        self._verdict = verdict
        self._downtime_limit_ms = verdict.downtime_limit_ms
        if verdict.throttle_percent != self._throttle_percent:
            self._throttle_percent = verdict.throttle_percent
            self._guest.order("throttle", percent=verdict.throttle_percent)
        return verdict

    def _switch_over(self, transport: Transport, number: int) -> tuple[int, bool]:
        """Pause the guest and send what is left: the last round's number, and whether all is over there.

        The guest stands still from the request to pause until the last page is applied, and nothing else is
        done meanwhile. Where that takes longer than the limit it runs again, and what is missing is dirty.
        """
        self.metrics.switchovers += 1
        self._progress.say("switchover: the guest is paused")
        still = self._still = StandingStill(self._downtime_limit_ms)
        self._guest.pause()
        left = pages = self._dirty_at_pause = self._sync()
        still.reached("last_send")
        while left and self._still is not None:
            number += 1
            outcome = self._round(transport, number, left)
            still.reached("hand_over", outcome.applied_at)
            left = self._again()
        if self._still is not None and not self._hand_over():
            self._end_standing_still(self._guest.stands_until)
        complete = self._still is not None
        self._still = None
        if complete:
            self.metrics.downtime = still.downtime()
            self._progress.say(f"switchover: {pages} pages were left, {still.downtime().total_ms:.1f} ms")
        else:
            self._count_return(still)
        return number, complete

    def _hand_over(self) -> bool:
        """The guest may run: at the destination, or a visited one here. Whether it stood still until now, by
        its own word; else what was sent is of several moments, and nothing of it may be committed."""
        if self._options.attach is None:
            return self._guest.stand_on()
        stood = self._guest.run()
        self._released = time.monotonic()
        log.debug("the guest runs again, stood still until now: %s", stood)
        if self._throttle_percent:
            self._guest.order("throttle", percent=0)
        return stood

    def _stands(self) -> bool:
        """Whether the guest stands still, as far as this side knows; at the end it says itself."""
        return self._still is not None

    def _let_run_again(self) -> None:
        """The limit has passed: what is on its way goes on as a round with the guest running."""
        self._guest.run()
        self._end_standing_still(self._guest.stands_until)

    def _end_standing_still(self, at_the_latest: float) -> None:
        """The guest runs again, before this switchover brought everything over."""
        still, self._still = self._still, None
        assert still is not None
        still.end(min(time.monotonic(), at_the_latest))
        self.metrics.returned_ms.append(still.total_ms())
        part, took_ms = still.longest()
        self._progress.say(
            f"switchover {self.metrics.switchovers} took longer than {still.limit_ms:g} ms "
            f"({part}: {took_ms:.0f} ms); the guest runs on"
        )

    def _count_return(self, still: StandingStill) -> None:
        """A switchover was too slow, or the guest's patience ran out. Raises NotConverged for the third."""
        self._released = None
        part, took_ms = still.longest()
        if self.metrics.switchovers >= MAX_SWITCHOVERS:
            raise NotConverged(
                f"did not converge: {MAX_SWITCHOVERS} switchovers took longer than the limit of "
                f"{still.limit_ms:g} ms, the last one mostly by {part} ({took_ms:.0f} ms); the guest runs on"
            )

    def _again(self) -> int:
        """Lay out what the last round of a paused guest did not bring over; how many pages."""
        if self._still is None:
            return 0  # it stays missing, for the next sync
        left = len(self._missing)
        self._rounds.pages[:left] = self._missing
        self._missing = NO_PAGES
        return left

    def _round(self, transport: Transport, number: int, pages: int) -> RoundOutcome:
        """Send the first `pages` of the list and wait at the barrier."""
        still, verdict = self._still, self._verdict
        self._verdict = None
        began = time.monotonic()
        before = self._sending.sent.totals()
        step = functools.partial(self._step, number, pages)
        self._sending.send(number, pages, step)
        if still is not None:
            still.reached("last_apply")
        outcome = transport.settle(number, self._rounds.pages[:pages], step, self._stands)
        self._missing = outcome.missing
        duration = time.monotonic() - began
        dirty = len(outcome.missing) + (self._note_dirty() if self._still is None else 0)
        moved = self._sending.sent.totals() - before
        deltas = None
        if self._sending.keeping is not None:
            normal, wire = int(moved[Count.NORMAL_PAGES]), int(moved[Count.WIRE_BYTES])
            deltas = self._sending.keeping.settled(number, outcome.missing, normal, wire, duration)
        self.metrics.rounds.append(
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
                paused=still is not None,
                decided_by=verdict,
                deltas=deltas,
            )
        )
        return outcome

    def _note_dirty(self) -> int:
        """Pages dirty now, kept as a point of the guest's dirty curve."""
        began = time.monotonic()
        dirty = self._of_living_guest(self._log.count)
        now = time.monotonic()
        self._curve.add(now - self._synced_at, dirty)
        self._dirty_pages, self._count_again_at = dirty, now + (now - began) / COUNT_SHARE
        return dirty

    def _step(self, number: int, pages: int, timeout_seconds: float) -> None:
        """Wait for something to happen, within the user's time limit, and show where things stand."""
        self._supervisor.wait(timeout_seconds)
        if self._deadline.passed():
            raise NotConverged(
                f"did not converge within --timeout {self._options.timeout_seconds:g} seconds "
                f"(round {number}); the guest runs on"
            )
        if self._still is None:
            self._show(number, pages)
        elif self._still.is_over() or not self._guest.renew():
            self._let_run_again()

    def _show(self, number: int, pages: int) -> None:
        sent = self._sending.sent.totals()
        rate = self._sample(sent)
        if rate is None:
            return
        if time.monotonic() >= self._count_again_at:
            self._note_dirty()
        unclaimed = self._rounds.unclaimed()
        if rate:
            left = (unclaimed + self._dirty_pages) / rate
            passed = time.monotonic() - self._began
            share = passed / (passed + left)
            self._progress.reach(Stage.ROUNDS, share, self._moment(number, pages, unclaimed, rate, sent))

    def _moment(self, number: int, pages: int, unclaimed: int, rate: float, sent: Totals) -> str:
        """Where things stand, in one line."""
        done = 100 * (1 - unclaimed / pages) if pages else 100.0
        wire = int(sent[Count.WIRE_BYTES])
        ratio = int(sent[Count.NORMAL_PAGES]) * PAGE_BYTES / wire if wire else 0.0
        return (
            f"round {number} {done:3.0f} %  {rate * PAGE_BYTES / 1e6:5.0f} guest MB/s  ratio {ratio:.2f}  "
            f"{self._dirty_pages} pages dirty"
        )

    def _sample(self, sent: Totals) -> float | None:
        """Pages per second of the last 100 ms or a little more; None where that was said within 100 ms.

        The window slides, so a peak is found wherever it lies.
        """
        now = time.monotonic()
        self._window.append((now, int(sent[Count.NORMAL_PAGES] + sent[Count.ZERO_PAGES])))
        while now - self._window[1][0] >= REFRESH_SECONDS:
            self._window.popleft()
        (began, before), (_, pages) = self._window[0], self._window[-1]
        if now - began < REFRESH_SECONDS:
            return None
        rate = (pages - before) / (now - began)
        self.metrics.pages_per_second_peak = max(self.metrics.pages_per_second_peak, rate)
        if now - self._shown_at < REFRESH_SECONDS:
            return None
        self._shown_at = now
        return rate

    # ---------------------------------------------------------------- the guest, afterwards

    def _release_guest(self) -> None:
        """The guest runs in the source at full speed, and has said so."""
        self._guest.order("throttle", percent=0)
        self._guest.run()
        self._released = self._released or time.monotonic()

    def _rest_visited(self) -> None:
        """A visited guest runs on for a moment, to be asked what it did afterwards."""
        assert self._released is not None
        self._guest.rest(max(0.0, self._released + AFTER_SECONDS - time.monotonic()))

    def _note_guest(self) -> None:
        """The guest's own view: what it reached, and its slowest second in each part of the run."""
        view = self.metrics.guest = self._guest.view(self._began, self._ended, self._released)
        self._say_rate(float(view["bytes_per_second_reached"]))

    def _say_rate(self, reached: float) -> None:
        guest = self._options.guest
        self.metrics.guest["rate_held"] = None
        if guest is None or not guest.dirty_rate or self._throttle_percent:
            return
        if self.metrics.guest["written_seconds"] < JUDGED_SECONDS:
            return
        self.metrics.guest["rate_held"] = reached >= HELD_SHARE * guest.dirty_rate
        if not self.metrics.guest["rate_held"]:
            self._progress.warn(
                f"the guest wrote {reached / (1 << 20):.0f} MiB/s, not the "
                f"{guest.dirty_rate / (1 << 20):.0f} MiB/s asked for: one process cannot hold that here"
            )

    # ---------------------------------------------------------------- the proof

    def _verify(self, transport: Transport) -> None:
        how = self._options.verify
        if how is None:
            return
        self._progress.say(f"checking the copy: {', '.join(CHECKS[how])}")
        wrong = transport.verify(how, self._between_checks, self._unexplained)
        self.metrics.verification = {check: not text for check, text in wrong.items()}
        for check, text in wrong.items():
            if text:
                raise RunFailed(f"{WRONG[check]}: {text}")

    def _unexplained(self, differing: PageNumbers) -> PageNumbers:
        """Of pages that differ from the copy, those that may not."""
        if self._released is None:
            return differing
        since = WrittenSince(self._log, self._rounds.pages)
        left = since.unexplained(differing)
        self.metrics.pages_written_since = len(differing) - len(left)
        return left

    def _between_checks(self, share: float) -> None:
        self._supervisor.wait(0)
        self._progress.reach(Stage.VERIFYING, share)


def _joined(reasons: set[str]) -> str:
    return ", ".join(sorted(reasons))
