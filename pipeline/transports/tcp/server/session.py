"""One session of a receiver: wait for a sender, take its run, and end with it.

The states are those of `pipeline.transports.tcp.protocol`. The session forks a process for control, and one
for each connection that carries packets, when it has let them in; it answers itself what needs all of them.
It waits for nothing but events.
"""

from __future__ import annotations

import hmac
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from guestmem.ipc import Message
from guestmem.units import show_size
from pipeline.errors import BadFrame, FerryError, RunFailed, one_line
from pipeline.options import ReceiveOptions
from pipeline.packets.counters import Count
from pipeline.processes.supervisor import Supervisor
from pipeline.processes.usage import usage_of
from pipeline.transports.tcp.messages import (
    Asked,
    Commit,
    Committed,
    Failure,
    Offer,
    Open,
    Settle,
    Verify,
    VerifyPages,
)
from pipeline.transports.tcp.protocol import FrameType, Role
from pipeline.transports.tcp.server.acceptor import Acceptor, Caller
from pipeline.transports.tcp.server.barrier import Barrier
from pipeline.transports.tcp.server.connections import (
    END_SECONDS,
    PeerConnection,
    close,
    drop,
    mark_private,
    start,
)
from pipeline.transports.tcp.server.control_server import ControlServerPlan, run_control_server, send_answer
from pipeline.transports.tcp.server.one_line_a_second import OneLineASecond
from pipeline.transports.tcp.server.patience import Patience
from pipeline.transports.tcp.server.probes import Probes
from pipeline.transports.tcp.server.receive_run import ReceiveRun, offer_of
from pipeline.transports.tcp.server.receivers import Receivers

TICK_SECONDS = 0.05
SETTLE_TICK_SECONDS = 0.001
"""While a sender waits at the barrier, perhaps with its guest standing still."""

NO_SUCH_RUN = "no run of this id is open here"


class State(Enum):
    """Where a session stands."""

    LISTENING = 0
    OFFERED = 1
    RUNNING = 2
    DONE = 3


@dataclass
class Outcome:
    """How a session ended."""

    error: FerryError | None
    record: dict[str, Any] = field(default_factory=dict)


class Session:
    """See the module."""

    def __init__(
        self,
        options: ReceiveOptions,
        listener: socket.socket,
        context: ssl.SSLContext | None,
        supervisor: Supervisor,
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        """`context` goes with the TLS of the options."""
        self._options = options
        self._supervisor = supervisor
        self._say, self._warn = say, warn
        self._refusals = OneLineASecond(warn)
        tls = None if options.tls is None or context is None else (options.tls, lambda: context)
        self._acceptor = Acceptor(
            supervisor, listener, tls, options.secret, self._welcome, self._refusals.say
        )
        self._state = State.LISTENING
        self._run_id = self._identity = b""
        self._offer: Offer
        self._receive_run: ReceiveRun | None = None
        self._receivers: Receivers | None = None
        self._control: PeerConnection | None = None
        self._probes = Probes(supervisor)
        self._control_generation = 0
        self._waiting_control: Caller | None = None
        self._patience = Patience(options.reconnect_seconds)
        self._answered: tuple[int, FrameType, dict[str, Any], bytes] | None = None
        self._asked = 0
        self._barrier: Barrier | None = None
        self._finish_asked: Asked | None = None
        self._ended = False
        self._sender_name = ""

    # ---------------------------------------------------------------- the loop

    def serve(self) -> Outcome:
        """Until a run has ended, well or not."""
        error: FerryError | None = None
        try:
            while not self._ended:
                self._supervisor.wait(TICK_SECONDS if self._barrier is None else SETTLE_TICK_SECONDS)
                self._tick()
        except FerryError as raised:
            error = raised
        except BadFrame as raised:
            error = RunFailed(str(raised))
        if error is not None:
            self._tell_failed(error)
            if self._receive_run is not None:
                self._receive_run.give_up()
        self._acceptor.close()
        self._refusals.flush()
        return Outcome(error, self._record())

    def _tick(self) -> None:
        self._acceptor.tick()
        self._refusals.tick()
        self._probes.tick(waiting=self._state is State.LISTENING)
        self._watch_control()
        if self._receivers is not None:
            self._receivers.tick()
        self._admit_control()
        if self._barrier is not None:
            self._try_to_settle(self._barrier)
        if self._finish_asked is not None:
            self._try_to_finish(self._finish_asked)
        self._watch_time()

    def _watch_time(self) -> None:
        """Raises RunFailed for a sender that is gone, or has nothing to do."""
        if self._state is State.OFFERED:
            self._patience.check_offered()
        elif self._state is State.RUNNING:
            packets = int(np.array(self._running.arrivals.delivered).sum())
            self._patience.check_running(packets, setting_up=self._setting_up())
        elif self._state is State.DONE and self._patience.control_is_gone(run_is_open=True):
            self._ended = True

    def _setting_up(self) -> bool:
        """Whether a connection's process has not welcomed its sender yet: it gives RAM its pages, perhaps."""
        return any(
            self._running.arrivals.packets(number)[0] != connection.generation
            for number, connection in self._taking.connections.items()
        )

    # ---------------------------------------------------------------- who comes in

    def _welcome(self, caller: Caller) -> None:
        """Somebody has said HELLO."""
        hello = caller.hello
        ours = hmac.compare_digest(hello.run_id, self._run_id) and hmac.compare_digest(
            caller.identity, self._identity
        )
        if hello.role is Role.PROBE:
            why = self._probes.welcome(caller, waiting=self._state is State.LISTENING)
            if why:
                self._refuse(caller, why, busy=True)
        elif hello.role is Role.RELAY:
            self._refuse(caller, "a receiver is here, pipeline.recv; a relay calls another relay")
        elif hello.role is not Role.PACKETS:
            self._welcome_control(caller, ours)
        elif self._state not in (State.RUNNING, State.DONE) or not ours:
            self._refuse(caller, NO_SUCH_RUN)
        elif self._state is State.DONE:
            # A connection that broke at the very end; its sender learns of the end by itself.
            self._refuse(caller, "the run is complete", busy=True)
        elif hello.number >= self._running.wanted.channels:
            self._refuse(caller, f"connection: {hello.number} of {self._running.wanted.channels}")
        elif hello.generation <= (last := self._taking.generation(hello.number)):
            self._refuse(caller, f"generation: {hello.generation} of connection {hello.number} after {last}")
        else:
            self._taking.welcome(hello.number, caller)

    def _welcome_control(self, caller: Caller, ours: bool) -> None:
        anew = caller.hello.role is Role.CONTROL
        if self._state is State.LISTENING and not anew:
            self._refuse(caller, NO_SUCH_RUN)
            return
        if self._state is State.LISTENING:
            self._run_id, self._identity = caller.hello.run_id, caller.identity
            self._sender_name = caller.name
            self._acceptor.running_host = caller.host
            self._offer = offer_of(self._options)
            self._state = State.OFFERED
            self._patience.asked()
        elif not ours or anew is not (self._state is State.OFFERED):
            self._refuse(caller, f"busy with a run of {self._sender_name}", busy=True)
            return
        elif caller.hello.generation <= self._control_generation:
            self._refuse(caller, f"generation: {caller.hello.generation} after {self._control_generation}")
            return
        self._control_generation = caller.hello.generation
        drop(self._supervisor, self._waiting_control)
        self._waiting_control = caller
        mark_private(self._supervisor, caller)
        self._patience.control_back()
        if self._control is not None:
            self._control.shut()
        self._admit_control()

    def _refuse(self, caller: Caller, why: str, *, busy: bool = False) -> None:
        self._refusals.say(f"refused {caller.name}: {why}")
        caller.refuse(why, busy=busy)

    def _admit_control(self) -> None:
        """Start a process for the caller, when its predecessor has ended."""
        if self._waiting_control is not None and self._control is None:
            caller, self._waiting_control = self._waiting_control, None
            plan = ControlServerPlan(self._offer.body())
            self._control = start(
                self._supervisor,
                caller,
                "control",
                lambda connection: run_control_server(connection, plan, caller.link()),
            )

    def _close_control(self, control: PeerConnection) -> Message | None:
        """What its process said last, with what it used added up."""
        last = close(self._supervisor, control)
        if last is not None and self._receive_run is not None:
            self._receive_run.figures.add(usage_of(last), int(last["private_bytes"]))
        return last

    def _watch_control(self) -> None:
        control = self._control
        if control is None:
            return
        while control.worker.inbox and control.worker.inbox[0][0]["kind"] == "request":
            message, _ = control.worker.inbox.pop(0)
            self._request(FrameType(message["type"]), message["body"])
        if not control.has_ended():
            return
        last = self._close_control(control)
        self._control = None
        why = "control's process was killed" if last is None else str(last["why"])
        if self._waiting_control is None:
            self._patience.control_lost(why)
        if last is not None and last["bad"]:
            raise RunFailed(why)
        if self._finish_asked is None and self._answered and self._answered[1] is FrameType.REPORT:
            self._ended = True
        elif self._waiting_control is None and self._state is not State.OFFERED:
            self._warn(
                f"control connection lost ({why}); waiting "
                f"{self._options.reconnect_seconds:g} s for the sender"
            )

    # ---------------------------------------------------------------- requests

    @property
    def _running(self) -> ReceiveRun:
        assert self._receive_run is not None
        return self._receive_run

    @property
    def _taking(self) -> Receivers:
        assert self._receivers is not None
        return self._receivers

    def _request(self, type_: FrameType, body: dict[str, Any]) -> None:
        """Answer a request, now or when what it asks for has come. Raises FerryError, BadFrame."""
        self._patience.asked()
        if type_ is FrameType.FAILED:
            raise RunFailed(f"send side: {Failure.of(body).text.removeprefix('send side: ')}")
        number = body.get("request")
        if self._answered is not None and number == self._answered[0]:
            self._send(*self._answered[1:])
            return
        if number == self._asked:
            return  # it is being worked on; the answer goes to the new connection
        if number != self._asked + 1:
            raise BadFrame(f"request: {number!r} after {self._asked}")
        self._asked += 1
        self._take(type_, body)

    def _take(self, type_: FrameType, body: dict[str, Any]) -> None:
        """A new request, in the state that it needs."""
        if type_ is FrameType.OPEN and self._state is State.OFFERED:
            self._open(Open.of(body))
        elif type_ is FrameType.SETTLE and self._state is State.RUNNING:
            asked = Settle.of(body)
            self._running.check_settle(asked)
            self._barrier = Barrier(asked, self._running.arrivals)
            self._try_to_settle(self._barrier)
        elif type_ is FrameType.VERIFY and self._state is State.RUNNING:
            verified = self._running.verified(Verify.of(body))
            self._answer(FrameType.VERIFIED, verified.body())
        elif type_ is FrameType.VERIFY_PAGES and self._state is State.RUNNING:
            pages, payload = self._running.verified_pages(VerifyPages.of(body))
            self._answer(FrameType.VERIFIED_PAGES, pages.body(), payload)
        elif type_ is FrameType.COMMIT and self._state is State.RUNNING:
            commit = Commit.of(body)
            where = self._running.commit(commit)
            self._state = State.DONE
            self._say(f"complete{', written to ' + where if where else ''}")
            self._answer(FrameType.COMMITTED, Committed(commit.request, where).body())
        elif type_ is FrameType.FINISH and self._state is State.DONE:
            self._finish_asked = Asked.of(body)
        else:
            raise BadFrame(f"frame type: {type_.name} in state {self._state.name}")

    def _open(self, wanted: Open) -> None:
        self._receive_run = ReceiveRun(self._options, self._offer, wanted)
        run = self._receive_run
        self._receivers = Receivers(
            self._supervisor,
            run.receiver_plan,
            lambda number: run.arrivals.packets(number)[0] > 0,
            self._warn_of_connection,
        )
        self._state = State.RUNNING
        self._patience.run_opened(wanted.ram_bytes)
        self._say(f"run of {self._sender_name}: {show_size(wanted.ram_bytes)} in {wanted.channels} channels")
        self._answer(FrameType.OPENED, Asked(wanted.request).body())

    def _warn_of_connection(self, text: str) -> None:
        if self._state is State.RUNNING:
            self._warn(text)

    def _answer(self, type_: FrameType, body: dict[str, Any], payload: bytes = b"") -> None:
        """Answer the request in hand, and keep the answer for a sender that did not hear it."""
        self._answered = (int(body["request"]), type_, body, payload)
        self._send(type_, body, payload)

    def _send(self, type_: FrameType, body: dict[str, Any], payload: bytes) -> None:
        if self._control is not None:
            send_answer(self._control.worker.connection, type_, body, payload)

    def _try_to_settle(self, barrier: Barrier) -> None:
        """Answer when nothing of the round can be on its way any more."""
        if not barrier.is_reached(self._taking.connections):
            return
        self._barrier = None
        settled, bitmap = self._running.settled(barrier.asked)
        self._answer(FrameType.SETTLED, settled.body(), bitmap)

    def _try_to_finish(self, asked: Asked) -> None:
        """Report when every connection's process has said what it used."""
        for connection in self._taking.connections.values():
            if self._patience.since_asked() > END_SECONDS:
                connection.shut()
        if not self._taking.finish():
            return
        self._finish_asked = None
        self._running.note_receivers(self._taking.figures, self._taking.reasons)
        report = self._running.report(asked.request)
        if report.fallback_reasons:
            software = report.counts[Count.QAT_SOFTWARE]
            self._warn(
                f"the QAT device did not decompress all ({', '.join(report.fallback_reasons)}): "
                f"{software} requests in software"
            )
        self._answer(FrameType.REPORT, report.body())

    # ---------------------------------------------------------------- the end

    def _tell_failed(self, error: FerryError) -> None:
        """The sender learns why, if it can be reached."""
        if self._control is None:
            return
        worker = self._control.worker
        self._supervisor.tell(worker, {"kind": "failed", "text": one_line(error)[:1000]})
        until = time.monotonic() + END_SECONDS
        while worker.exit_status is None and time.monotonic() < until:
            try:
                self._supervisor.wait(TICK_SECONDS)
            except FerryError:
                continue

    def _record(self) -> dict[str, Any]:
        run = self._receive_run
        return {
            "sender": self._sender_name or None,
            "size_bytes": run.wanted.ram_bytes if run else None,
            "channels": run.wanted.channels if run else None,
            "rounds": run.rounds if run else 0,
            "output": (run.output or None) if run else None,
            "complete": self._state is State.DONE,
        }
