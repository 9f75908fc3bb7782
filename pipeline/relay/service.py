"""A relay at work: it listens, makes a session of each migration, and says what became of it."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import (
    Cancelled,
    FerryError,
    InternalError,
    PeerRefused,
    RunFailed,
)
from pipeline.processes.cgroup import usable_cpus
from pipeline.processes.host_cpus import HostCpus
from pipeline.processes.signals import ending_signals
from pipeline.processes.usage import Usage
from pipeline.progress import Progress
from pipeline.relay.buffers import Buffers
from pipeline.relay.codec_pool import CodecPool
from pipeline.relay.destination_session import NOT_DELIVERED, OTHER_VERSION
from pipeline.relay.destination_side import DestinationSide
from pipeline.relay.link_wire import FULL_BYTES, LinkWire
from pipeline.relay.metrics import Metrics, Totals
from pipeline.relay.options import RelayOptions
from pipeline.relay.report import document
from pipeline.relay.service_manager import notify
from pipeline.relay.session import Session, Shared
from pipeline.relay.source_session import REFUSES, UNKNOWN_THERE
from pipeline.relay.source_side import SourceSide
from qat.probe import ANSWERED, probe

LOOK_SECONDS = 0.02
ANSWER_SECONDS = 5.0
LAST_WORDS_SECONDS = 3.0
"""What has gone well may take so long to say so, however the relay is ended."""

FULL_IDLE_SHARE = 0.08
"""CPUs that are idle for less are full."""

FEWEST_CPUS = 0.5
"""However little the codecs got: they may have waited for each other."""


@dataclass
class Outcomes:
    """What became of the migrations so far."""

    documents: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> dict[str, Any] | None:
        return next((one for one in reversed(self.documents) if one["error"] is not None), None)


def run_relay(
    options: RelayOptions,
    command: list[str],
    progress: Progress,
    on_document: Callable[[dict[str, Any]], None],
) -> Outcomes:
    """Until as many migrations have ended as were asked for. Raises FerryError."""
    service = Service(options, command, progress, on_document)
    return asyncio.run(service.run())


class Service:
    """One relay."""

    def __init__(
        self,
        options: RelayOptions,
        command: list[str],
        progress: Progress,
        on_document: Callable[[dict[str, Any]], None],
    ) -> None:
        self._options, self._command, self._progress = options, command, progress
        self._on_document = on_document
        self.outcomes = Outcomes()
        self._sessions: list[Session] = []
        self._draining = False
        self._signals = 0
        self._error: FerryError | None = None
        self._metrics: Metrics | None = None

    async def run(self) -> Outcomes:
        """Listen, serve, end. Raises FerryError."""
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        options = self._options
        link = LinkWire(options.max_bandwidth)
        buffers = Buffers()
        with_qat = options.pool.method == "auto" and options.to is not None and probe() == ANSWERED
        pool = CodecPool(options.pool, link, buffers, with_qat=with_qat)
        self._shared = Shared(
            pool,
            buffers,
            link,
            self._progress.say,
            self._progress.warn,
            options.reconnect_seconds,
            options.connections,
        )
        side = SourceSide(self, options) if options.to is not None else DestinationSide(self, options)
        signals = ending_signals()
        for number in signals:
            self._loop.add_signal_handler(number, self._signalled, number)
        self._loop.set_exception_handler(self._fault)
        looker = self._loop.create_task(self._look())
        try:
            await side.listen()
            if options.metrics is not None:
                self._metrics = Metrics(options.metrics, self._ask_totals)
                self._progress.say(f"metrics at http://{options.metrics.host}:{self._metrics.port}/metrics")
            notify("READY=1")
            await self._over.wait()
        finally:
            notify("STOPPING=1")
            if self._metrics is not None:
                self._metrics.close()
            looker.cancel()
            side.close()
            await self._end_all()
            await side.settle()
            pool.close()
            for number in signals:
                self._loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)  # it ends by itself, in a moment
        if self._error is not None:
            raise self._error
        return self.outcomes

    def _ask_totals(self) -> Totals:
        """For a scrape, in a thread of its own: the loop is asked, which alone may read what it changes."""
        return asyncio.run_coroutine_threadsafe(self._totals(), self._loop).result(ANSWER_SECONDS)

    async def _totals(self) -> Totals:
        running = list(self._sessions)
        all_of_them = [*self.outcomes.documents, *(self.report(session, 0.0) for session in running)]
        failed = sum(one["error"] is not None for one in self.outcomes.documents)
        qat = self._shared.pool.requests()
        return Totals(
            side=self._options.side,
            active=len(running),
            completed=len(self.outcomes.documents) - failed,
            failed=failed,
            undecided=sum(session.figures.undecided for session in running),
            guest_bytes=sum(one["traffic"]["bytes"] for one in all_of_them),
            wire_bytes=sum(one["traffic"]["wire_bytes"] for one in all_of_them),
            retransmitted_bytes=sum(one["traffic"]["retransmitted_bytes"] for one in all_of_them),
            reconnections=sum(one["reconnections"] for one in all_of_them),
            stalls=sum(one["stalls"] for one in all_of_them),
            stalled_seconds=sum(one["time"]["stalled_ms"] for one in all_of_them) / 1e3,
            under_way_bytes=sum(session.out.window.under_way_bytes for session in running),
            hardware_requests=int(qat["hardware_requests"]),
            software_requests=int(qat["software_requests"]),
        )

    def _fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception that nobody expected."""
        error = context.get("exception")
        if isinstance(error, FerryError):
            self._error = error
        else:
            self._error = InternalError.of(error or RuntimeError(str(context.get("message"))))
        self._over.set()

    def _signalled(self, number: int) -> None:
        """SIGTERM lets what goes on end; again, or Ctrl-C, it ends all."""
        self._signals += 1
        if number == signal.SIGTERM and self._signals == 1 and self._sessions:
            self._draining = True
            self._progress.say("no new migration is taken; the one that goes on may end")
            return
        if number != signal.SIGTERM or self._sessions:
            self._error = Cancelled(f"cancelled by {signal.Signals(number).name}")
        self._over.set()

    async def _end_all(self) -> None:
        done = [session.finished for session in self._sessions if session.ends_by_itself()]
        if done:
            await asyncio.wait(done, timeout=LAST_WORDS_SECONDS)
        for session in list(self._sessions):
            session.give_up("the relay was ended" if self._error is None else str(self._error))
        waiting = [session.finished for session in self._sessions]
        if waiting:
            await asyncio.wait(waiting, timeout=3.0)
        await asyncio.sleep(0)

    async def _look(self) -> None:
        """Measure the link, and let auto choose."""
        shared = self._shared
        looked_ns, cpu_ns, starved = time.monotonic_ns(), 0, False
        cpus = HostCpus()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            waiting = self._look_at_link()
            for session in self._sessions:
                session.out.pace.look(link_is_full=shared.link.is_full())
            auto = shared.pool.auto
            if auto is None or not self._sessions:
                continue
            now_ns, used_ns = time.monotonic_ns(), shared.pool.encode_cpu_ns()
            backlog = shared.pool.backlog() >= self._options.pool.channels
            starves = (waiting < FULL_BYTES and backlog) or cpus.idle_share() < FULL_IDLE_SHARE
            if starved and starves:
                # QEMUs, their guests, and both relays may share these CPUs.
                auto.see_cpus(max(FEWEST_CPUS, (used_ns - cpu_ns) / (now_ns - looked_ns)))
            elif waiting >= FULL_BYTES and not shared.pool.backlog():
                auto.see_cpus(usable_cpus())
            looked_ns, cpu_ns, starved = now_ns, used_ns, starves
            auto.sample()

    def _look_at_link(self) -> int:
        """The bytes that wait for it."""
        waiting = sent = 0
        sending: list[int | None] = []
        for session in self._sessions:
            for wire in session.wires.values():
                try:
                    waiting += wire.unsent_bytes()
                    sending.append(wire.sending_ns())
                except OSError:
                    continue
                sent += wire.sent_bytes
            sent += session.figures.wire_sent_bytes
        known = [one for one in sending if one is not None]
        self._shared.link.look(
            sent - waiting,
            waiting,
            held_back=any(session.out.pace.was_limit for session in self._sessions),
            sending_ns=sum(known) if known and len(known) == len(sending) else None,
        )
        return waiting

    # ---------------------------------------------------------------- for the sides

    @property
    def shared(self) -> Shared:
        return self._shared

    @property
    def draining(self) -> bool:
        return self._draining

    def say(self, text: str) -> None:
        self._progress.say(text)

    def warn(self, text: str) -> None:
        self._progress.warn(text)

    def begin(self, session: Session) -> None:
        """A session more."""
        self._sessions.append(session)
        cpu = Usage.now().cpu_seconds
        session.finished.add_done_callback(lambda _: self._ended(session, cpu))

    def report(self, session: Session, cpu_before: float) -> dict[str, Any]:
        """What is known of a session here."""
        return document(session, self._options.side, cpu_before, self._command)

    def _ended(self, session: Session, cpu_before: float) -> None:
        self._sessions.remove(session)
        found = self.report(session, cpu_before)
        self.outcomes.documents.append(found)
        try:
            self._on_document(found)
        except FerryError as error:
            self._progress.warn(str(error))
        runs = self._options.runs
        if (runs and len(self.outcomes.documents) >= runs) or (self._draining and not self._sessions):
            self._over.set()

    def watch(self, sock: socket.socket, on_ready: Callable[[], None], *, to_write: bool = False) -> None:
        """As the acceptor wants it: call it when the socket is ready."""
        (self._loop.add_writer if to_write else self._loop.add_reader)(sock, on_ready)

    def unwatch(self, sock: socket.socket) -> None:
        self._loop.remove_reader(sock)
        self._loop.remove_writer(sock)


def error_of(outcomes: Outcomes) -> FerryError | None:
    """What a command that has ended raises: that of the last migration that failed."""
    failed = outcomes.failed
    if failed is None:
        return None
    text = str(failed["error"])
    refused = any(words in text for words in (UNKNOWN_THERE, REFUSES, OTHER_VERSION, NOT_DELIVERED))
    return PeerRefused(text) if refused else RunFailed(text)
