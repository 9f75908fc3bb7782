"""The coordinator: set up, rounds, switchover, verify."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np

from guestmem.guest import GuestSpec
from guestmem.segment import PAGE_BYTES
from guestmem.workload import HELD_SHARE
from pipeline.destination.verification import CHECKS
from pipeline.dirty_curve import CurveRecorder
from pipeline.errors import FerryError, HostError, NotConverged, RunFailed, one_line
from pipeline.options import Options
from pipeline.packets.counters import Count, Totals
from pipeline.policy import Decision, RoundFigures, Situation, Verdict, decide
from pipeline.processes.memory import check_memory
from pipeline.processes.supervisor import Deadline, Supervisor
from pipeline.processes.usage import Usage, private_bytes
from pipeline.progress import REFRESH_SECONDS, Moment, Progress
from pipeline.report.metrics import Downtime, Metrics
from pipeline.source.guest_client import GuestClient
from pipeline.source.send_side import queue_bytes
from pipeline.transports.base import NO_PAGES, Pages, Settled
from pipeline.transports.registry import TRANSPORTS

COUNT_SHARE = 0.01
"""Of the coordinator's time that counting dirty pages may take while a round goes on: the count grows
with the guest (4 ms in 8 GiB)."""

AFTER_SECONDS = 1.1
"""How long a visited guest runs on before it is asked for its slowest second afterwards."""

MAX_PASSES = 100
"""Rounds that a paused guest's last pages may take: one, and one more for each break of a connection."""

JUDGED_SECONDS = 1.0
"""A guest that ran for less than this is not judged by the rate it reached."""


class Migration:
    """One run. `metrics` can be read whenever `run` has ended, well or not."""

    def __init__(self, options: Options, supervisor: Supervisor, progress: Progress) -> None:
        """`options` with method and level resolved."""
        self._options = options
        self._supervisor = supervisor
        self._progress = progress
        self._throttle_percent = 0
        self._released: float | None = None
        self._downtime_limit_ms = options.policy.downtime_limit_ms
        self._deadline = Deadline(0)
        self._dirty_pages, self._count_again_at = 0, 0.0
        self._missing: Pages = NO_PAGES
        self._tell_far_side: Callable[[str], None] | None = None
        self.metrics = Metrics()

    def run(self) -> None:
        """Migrate. Raises FerryError; the guest in the source is never harmed."""
        began = time.monotonic()
        self._open_guest()
        self._start_transport()
        prealloc = self.metrics.prealloc_ms or 0.0
        self.metrics.setup_ms = (time.monotonic() - began) * 1e3 - prealloc
        try:
            self._migrate()
        except NotConverged:
            self._release_guest()
            raise
        self._verify()
        self._transport.keep()
        self._finish()
        if self._options.attach is not None:
            self._release_guest()
        else:
            self._note_guest()

    def abandon(self, error: FerryError) -> None:
        """The run has failed with `error`: the other side should know."""
        if self._tell_far_side is not None:
            self._supervisor.forget_cancel()
            self._tell_far_side(one_line(error))

    # ---------------------------------------------------------------- set-up

    def _open_guest(self) -> None:
        """A guest that writes: one's own, or the one that is there."""
        options = self._options
        if options.attach is not None:
            self._guest = GuestClient.attach(self._supervisor, options.attach, options.dirty_log)
            self._check_memory(self._guest.source.size_bytes, images=1)
        else:
            assert options.guest is not None
            size = options.guest.size_bytes
            self._check_memory(size, images=2)
            self._progress.say(f"filling {size >> 20} MiB of guest RAM")
            spec = GuestSpec(size, options.guest.content(), options.guest.workload())
            self._guest = GuestClient.start(self._supervisor, spec, options.dirty_log)
        self._source, self._log = self._guest.source, self._guest.log
        self.metrics.size_bytes = self._source.size_bytes
        self.metrics.dirty_log = self._guest.log_kind
        if options.verify in ("invariant", "both") and not self._guest.self_checking:
            raise HostError(
                f"--verify {options.verify}: this guest does not do the self-check workload "
                "(--preset self-check), so its copy cannot be judged without the source"
            )
        self._guest.order("run")

    def _check_memory(self, size_bytes: int, images: int) -> None:
        workers = self._options.channels + self._options.receivers
        check_memory(size_bytes, images, queue_bytes(self._options), workers)

    def _start_transport(self) -> None:
        options = self._options
        self._progress.say(
            f"starting {options.channels} channels and {options.receivers} receivers"
            + (", giving the destination its pages" if options.prealloc else "")
        )
        try:
            self._transport = TRANSPORTS[options.transport](options, self._supervisor, self._source)
        except OSError as error:
            raise HostError(f"cannot set up shared memory: {error}") from error
        self._tell_far_side = self._transport.abandon
        self._sending = self._transport.sending
        self._rounds = self._sending.rounds
        reasons, simulated = self._sending.await_ready()
        ready = self._transport.await_ready()
        self.metrics.prealloc_ms = ready.prealloc_ms
        self.metrics.simulated = simulated or ready.simulated
        if self.metrics.simulated:
            self._progress.warn("the QAT device is emulated: its figures are simulated")
        reason = self.metrics.fallback_reason = _joined(reasons | ready.fallback_reasons)
        if reason:
            self._progress.warn(
                f"no QAT device ({reason}): compressing in software (ISA-L) into the same GZIP_EXT members; "
                "python -m tools.doctor says why"
            )

    # ---------------------------------------------------------------- the clock

    def _migrate(self) -> None:
        self._deadline = Deadline(self._options.timeout_seconds)
        used_before = Usage.now()
        self._began = self._sampled_at = time.monotonic()
        self._sampled_pages = 0
        self._curve = CurveRecorder(self._source.pages)
        auto = self._sending.auto
        if auto is not None:
            auto.begin()
        try:
            last = self._precopy()
            self._switch_over(last)
        finally:
            self._sample(self._sending.sent.totals())
            self._ended = time.monotonic()
            self.metrics.total_ms = (self._ended - self._began) * 1e3
            self.metrics.sent = self._sending.sent.totals()
            self.metrics.received = self._transport.received()
            self.metrics.auto = auto.record() if auto is not None else None
        coordinator = Usage.now() - used_before
        self.metrics.send, self._reasons = self._sending.finish()
        self.metrics.send.add(coordinator, private_bytes())
        self.metrics.coordinator_cpu_seconds = coordinator.cpu_seconds

    def _finish(self) -> None:
        """End the transport, and take what its far side metrics."""
        far = self._transport.finish()
        self.metrics.send.add(far.near.usage, far.near.private_bytes_max)
        self.metrics.recv, self.metrics.received = far.figures, far.received
        self.metrics.transport = far.record
        self._say_busy(_joined(self._reasons | far.fallback_reasons))

    def _say_busy(self, reason: str) -> None:
        """A device that answered at first, but not always."""
        if reason and not self.metrics.fallback_reason:
            self.metrics.fallback_reason = reason
            software = int(self.metrics.sent[Count.QAT_SOFTWARE] + self.metrics.received[Count.QAT_SOFTWARE])
            self._progress.warn(f"the QAT device did not do all ({reason}): {software} requests in software")

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
        """Fetch and clear the dirty log into the round's list, with what went missing; how many pages."""
        count = self._of_living_guest(lambda: self._log.sync(self._rounds.pages))
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
            Situation(metrics.rounds, metrics.verdicts, self._throttle_percent, self._downtime_limit_ms),
        )
        metrics.verdicts.append(verdict)
        self._downtime_limit_ms = verdict.downtime_limit_ms
        if verdict.throttle_percent != self._throttle_percent:
            self._throttle_percent = verdict.throttle_percent
            self._guest.order("throttle", percent=verdict.throttle_percent)
        return verdict

    def _switch_over(self, last: int) -> None:
        """The guest stands still: from the request to pause until the last page is applied."""
        paused_at = time.monotonic()
        self._guest.order("pause")
        pages = self._sync()
        synced_at = sent_at = applied_at = time.monotonic()
        self._progress.say(f"switchover: the guest is paused, {pages} pages are left")
        number, left = last, pages
        while left:
            number += 1
            sent_at, settled = self._round(number, left)
            applied_at = settled.applied_at
            left = self._again(number - last)
        ended_at = time.monotonic()
        self.metrics.downtime = Downtime(
            last_sync_ms=(synced_at - paused_at) * 1e3,
            last_send_ms=(sent_at - synced_at) * 1e3,
            last_apply_ms=(applied_at - sent_at) * 1e3,
            hand_over_ms=(ended_at - applied_at) * 1e3,
        )

    def _again(self, passes: int) -> int:
        """Lay out what the last round of a paused guest did not bring over; how many pages."""
        left = len(self._missing)
        if passes >= MAX_PASSES and left:
            raise RunFailed(f"{left} pages did not arrive in {passes} passes over a connection that breaks")
        self._rounds.pages[:left] = self._missing
        self._missing = NO_PAGES
        return left

    def _round(self, number: int, pages: int) -> tuple[float, Settled]:
        """Send the first `pages` of the list and wait at the barrier; when all were sent, and applied."""
        began = time.monotonic()
        before = self._sending.sent.totals()
        step = functools.partial(self._step, number, pages)
        sent_at = self._sending.send(number, pages, step)
        settled = self._transport.settle(number, self._rounds.pages[:pages], step)
        self._missing = settled.missing
        duration = time.monotonic() - began
        dirty = self._note_dirty() + len(settled.missing)
        moved = self._sending.sent.totals() - before
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
            )
        )
        return sent_at, settled

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
        self._show(number, pages)

    def _show(self, number: int, pages: int) -> None:
        sent = self._sending.sent.totals()
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
            dirty_pages=self._dirty_pages if time.monotonic() < self._count_again_at else self._note_dirty(),
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
        self.metrics.pages_per_second_peak = max(self.metrics.pages_per_second_peak, rate)
        return rate

    # ---------------------------------------------------------------- the guest, afterwards

    def _release_guest(self) -> None:
        """The guest runs in the source at full speed, and has said so."""
        self._guest.order("throttle", percent=0)
        self._guest.order("run")
        self._released = time.monotonic()
        if self._options.attach is not None:
            self._guest.rest(AFTER_SECONDS)
        self._note_guest()

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

    def _verify(self) -> None:
        how = self._options.verify
        if how is None:
            return
        self._progress.say(f"checking the copy: {', '.join(CHECKS[how])}")
        wrong = self._transport.verify(how, functools.partial(self._supervisor.wait, 0))
        self.metrics.verification = {check: not text for check, text in wrong.items()}
        for check, text in wrong.items():
            if text:
                raise RunFailed(f"{WRONG[check]}: {text}")


WRONG = {"invariant": "the copy is not of one moment", "images": "the copy is not the source"}


def _joined(reasons: set[str]) -> str:
    return ", ".join(sorted(reasons))


def status_of(error: FerryError | None) -> str:
    """The result's `status` for how a run ended."""
    return "completed" if error is None else error.status
