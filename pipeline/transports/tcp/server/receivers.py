"""The workers that take a run's packets, one for each number of a connection, as long as the run lasts.

A worker gives its mapping of the destination its pages once. A connection that is made again is handed to
the worker that is there (SCM_RIGHTS of unix(7)), when it has shown that it belongs to the run. What a worker
reads of a TLS connection then comes through a relay: the state of TLS cannot be handed over, and a handshake
with somebody unknown has no place in a process that holds the destination.
"""

from __future__ import annotations

import functools
import socket
import ssl
from collections.abc import Callable

from guestmem.ipc import Connection, Message, PeerGone
from pipeline.processes.supervisor import Supervisor, Worker
from pipeline.processes.usage import SideFigures, usage_of
from pipeline.transports.tcp.server.acceptor import Caller
from pipeline.transports.tcp.server.channel_receiver import ChannelReceiverPlan, run_channel_receiver
from pipeline.transports.tcp.server.connections import (
    PeerConnection,
    drop,
    mark_private,
    start,
)
from pipeline.transports.tcp.server.tls_relay import run_tls_relay


class Receivers:
    """Workers and connections by number. `figures` and `reasons` are what ended workers said."""

    def __init__(
        self,
        supervisor: Supervisor,
        plan_of: Callable[[int, bool], ChannelReceiverPlan],
        is_set_up: Callable[[int], bool],
        warn: Callable[[str], None],
    ) -> None:
        """`plan_of(number, first)` is a worker's plan, `first` when no worker had the number before;
        `is_set_up` says whether a number's worker has ever been ready."""
        self._supervisor = supervisor
        self._plan_of, self._is_set_up, self._warn = plan_of, is_set_up, warn
        self.connections: dict[int, PeerConnection] = {}
        self.figures, self.reasons = SideFigures(), set[str]()
        self._workers: dict[int, Worker] = {}
        self._generations: dict[int, int] = {}
        self._waiting: dict[int, Caller] = {}
        self._relays: dict[int, Worker] = {}
        self._ending: list[Worker] = []
        self._started: set[int] = set()

    def generation(self, number: int) -> int:
        """The latest that a caller of this number had; 0 before the first."""
        return self._generations.get(number, 0)

    def welcome(self, number: int, caller: Caller) -> None:
        """A connection that belongs to the run; an earlier one of the number ends."""
        self._generations[number] = caller.hello.generation
        drop(self._supervisor, self._waiting.pop(number, None))
        self._waiting[number] = caller
        mark_private(self._supervisor, caller)
        if number in self.connections:
            self.connections[number].shut()
        self._admit(number)

    def tick(self) -> None:
        """Notice what has ended, and let in who waited for it."""
        for number in list(self._workers):
            self._watch(number)
        self._ending = [relay for relay in self._ending if not self._has_gone(relay)]
        for number in list(self._waiting):
            self._admit(number)

    def finish(self) -> bool:
        """Have workers end that have no connection; whether all have ended."""
        for number, worker in self._workers.items():
            if number not in self.connections:
                self._supervisor.tell(worker, {"kind": "finish"})
        return not self._workers and not self._ending

    # ---------------------------------------------------------------- coming

    def _admit(self, number: int) -> None:
        """Give the caller who waits to the worker that is there, or to a new one."""
        if number in self.connections:
            return
        caller = self._waiting.pop(number)
        worker = self._workers.get(number)
        if worker is None:
            plan = self._plan_of(number, number not in self._started)
            main = functools.partial(_receive, plan=plan, caller=caller)
            connection = start(self._supervisor, caller, f"receiver {number}", main)
            self._workers[number] = connection.worker
            self._started.add(number)
        else:
            connection = PeerConnection(caller, worker)
            self._hand_over(number, connection)
        self.connections[number] = connection

    def _hand_over(self, number: int, connection: PeerConnection) -> None:
        """The caller's socket, or where TLS ends, the plain end of a relay, to a worker that has none."""
        caller = connection.caller
        if not isinstance(caller.sock, ssl.SSLSocket):
            self._give(connection, caller.sock)
            return
        outer, inner = socket.socketpair()
        with outer, inner:
            self._supervisor.mark_private(inner.fileno())
            self._supervisor.unmark_private(caller.sock.fileno())
            main = functools.partial(run_tls_relay, tls=caller.sock, plain=outer)
            relay = self._supervisor.start(f"tls {number}", "recv", main)
            relay.leaving = True  # it ends with its connection
            mark_private(self._supervisor, caller)
            self._supervisor.unmark_private(inner.fileno())
            self._relays[number] = relay
            self._give(connection, inner)

    def _give(self, connection: PeerConnection, sock: socket.socket) -> None:
        caller = connection.caller
        order = {
            "kind": "connection",
            "generation": caller.hello.generation,
            "version": caller.version,
            "received": caller.received,
            "sent": caller.sent,
        }
        try:
            connection.worker.connection.send(order, (sock.fileno(),))
        except PeerGone:
            pass  # it was killed this moment, which the next tick sees

    # ---------------------------------------------------------------- going

    def _watch(self, number: int) -> None:
        """Take what the worker says, and its end."""
        worker, connection = self._workers[number], self.connections.get(number)
        if worker.exit_status is not None or (connection is not None and self._is_stuck(number, connection)):
            self._worker_ended(number, worker)
            return
        while worker.inbox and worker.inbox[0][0]["kind"] == "broken":
            message, _ = worker.inbox.pop(0)
            self._connection_ended(number, str(message["why"]))

    def _is_stuck(self, number: int, connection: PeerConnection) -> bool:
        """Whether its connection was ended from here and the worker does not go on; one that gives RAM its
        pages is at work."""
        return self._is_set_up(number) and connection.has_ended()

    def _worker_ended(self, number: int, worker: Worker) -> None:
        last = next((m for m, _ in reversed(worker.inbox) if m["kind"] == "usage"), None)
        self._connection_ended(number, "its process was killed" if last is None else "")
        del self._workers[number]
        self._supervisor.dismiss(worker)
        self._add(last)

    def _connection_ended(self, number: int, why: str) -> None:
        connection = self.connections.pop(number, None)
        if connection is None:
            return
        if why and connection.shut_at is None:
            self._warn(f"connection {number} broken: {why}")
        connection.shut()
        relay = self._relays.pop(number, None)
        if relay is not None:
            self._ending.append(relay)
        drop(self._supervisor, connection.caller)

    def _has_gone(self, relay: Worker) -> bool:
        """Take leave of a relay that has ended."""
        if relay.exit_status is None:
            return False
        self._add(next((m for m, _ in reversed(relay.inbox) if m["kind"] == "usage"), None))
        self._supervisor.dismiss(relay)
        return True

    def _add(self, last: Message | None) -> None:
        if last is not None:
            self.figures.add(usage_of(last), int(last["private_bytes"]))
            self.reasons |= {str(last["fallback_reason"])} - {""}


def _receive(connection: Connection, plan: ChannelReceiverPlan, caller: Caller) -> None:
    run_channel_receiver(connection, plan, caller.hello.generation, caller.link())
