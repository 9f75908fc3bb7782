"""Control on the send side: a process that asks the receiver what the coordinator wants to know.

    coordinator                     this process                       receiver
        --- ask SETTLE ... ------------>  --- SETTLE, number n ---------->
                                          --- PING, once a second ------->
        <-- answer SETTLED ... --------   <-- SETTLED, number n ----------

It blocks where it must, so that the coordinator never does. When the connection is lost it calls
again, for the time that --reconnect gives, and asks again what was not answered.
"""

from __future__ import annotations

import dataclasses
import select
import time
from dataclasses import dataclass
from typing import Any

from guestmem.ipc import Connection
from pipeline.errors import BadFrame, ConnectionLost, FerryError, PeerFailed, PeerRefused, RunFailed
from pipeline.processes.usage import Usage, usage_message
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.client.no_progress import Unanswered, no_connection_again
from pipeline.transports.tcp.link import Link
from pipeline.transports.tcp.messages import Failure, Offer, Ping
from pipeline.transports.tcp.protocol import (
    PING_SECONDS,
    STALL_SECONDS,
    FrameLimits,
    FrameType,
    Hello,
    Role,
)

ANSWERS = frozenset(
    {
        FrameType.PONG,
        FrameType.OPENED,
        FrameType.SETTLED,
        FrameType.VERIFIED,
        FrameType.VERIFIED_PAGES,
        FrameType.COMMITTED,
        FrameType.REPORT,
        FrameType.FAILED,
    }
)
TICK_SECONDS = 0.25


@dataclass(frozen=True)
class ControlClientPlan:
    """Whom to ask. `payload` is shared memory for the one that comes with an answer."""

    peer: Peer
    run_id: bytes
    payload: memoryview


def run_control_client(connection: Connection, plan: ControlClientPlan) -> None:
    """Call the receiver, then ask until the coordinator says finish. Raises FerryError."""
    before = Usage.now()
    asking = ControlClient(connection, plan)
    try:
        asking.open()
        asking.work()
    except BadFrame as error:
        raise RunFailed(f"{plan.peer.address}: {error}") from error
    connection.send({**usage_message(before, ""), **asking.record()})


class ControlClient:
    """The conversation, over one connection after the other."""

    def __init__(self, connection: Connection, plan: ControlClientPlan) -> None:
        self._connection = connection
        self._plan = plan
        self._peer = plan.peer
        self._limits = FrameLimits(ANSWERS, payload_bytes=len(plan.payload))
        self._generation = 1
        self._unanswered: tuple[FrameType, dict[str, Any]] | None = None
        self._finished = False
        self._round_trip_ns: int | None = None
        self._offset_ns = 0
        self._broken: list[str] = []
        self._waiting = Unanswered(plan.peer)
        self._link: Link

    def open(self) -> None:
        """The first call, and the receiver's offer. Raises RunFailed, PeerRefused, BadFrame."""
        offer = self._call(Role.CONTROL)
        self._peer = dataclasses.replace(self._peer, version=self._link.version)
        self._connection.send({"kind": "offer", "version": self._link.version, "offer": offer.body()})

    def _call(self, role: Role) -> Offer:
        hello = Hello(role, 0, self._generation, self._plan.run_id)
        seconds = self._peer.reconnect_seconds
        self._link, body, self._generation = self._peer.keep_calling(hello, seconds, lambda: None)
        self._heard_at = time.monotonic()
        self._waiting.connected()
        self._ping_at = 0.0
        return Offer.of(body)

    def work(self) -> None:
        """Ask and answer, until finish."""
        while not self._finished:
            try:
                self._turn()
            except ConnectionLost as error:
                self._resume(str(error))

    def _resume(self, why: str) -> None:
        """Call again, and ask again. Raises RunFailed when the time is over."""
        self._link.close()
        self._broken.append(why)
        self._waiting.lost(asked=self._unanswered is not None)
        self._connection.send({"kind": "lost", "why": why})
        self._generation += 1
        try:
            self._call(Role.RESUME)
        except PeerRefused as error:
            raise RunFailed(f"the control connection was lost ({why}); {error}") from error
        except RunFailed as error:
            said = no_connection_again(self._plan.peer, error)
            raise RunFailed(f"the control connection was lost ({why}); {said}") from error
        self._connection.send({"kind": "resumed"})
        self._connection.send(
            {"kind": "warning", "text": f"the control connection broke ({why}) and was made again"}
        )
        try:
            if self._unanswered is not None:
                self._link.send(*self._unanswered)
        except ConnectionLost as error:
            self._resume(str(error))

    def _turn(self) -> None:
        """Wait for one thing to happen, and do it. Raises ConnectionLost, BadFrame."""
        now = time.monotonic()
        if now >= self._ping_at:
            self._link.send(FrameType.PING, Ping(time.monotonic_ns(), 0).body())
            self._ping_at = now + PING_SECONDS
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(self._link, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(0 if self._link.pending() else TICK_SECONDS * 1000)]
        if self._link.pending() or self._link.fileno() in ready:
            self._hear()
        elif time.monotonic() - self._heard_at > STALL_SECONDS:
            raise ConnectionLost(f"stalled: nothing was heard for {STALL_SECONDS:g} s")
        if self._connection.fileno() in ready:
            self._obey()

    def _obey(self) -> None:
        """An order of the coordinator's. Raises ConnectionLost."""
        order, _ = self._connection.receive()
        if order["kind"] == "finish":
            self._link.close()
            self._finished = True
        elif order["kind"] == "failed":
            self._link.send(FrameType.FAILED, Failure(str(order["text"])).body())
            self._link.close()
            self._finished = True
        else:
            self._unanswered = FrameType(order["type"]), order["body"]
            self._link.send(*self._unanswered)

    def _hear(self) -> None:
        """A frame of the receiver's. Raises ConnectionLost, BadFrame, PeerFailed, PeerRefused."""
        header = self._link.header(self._limits)
        body = self._link.json(header)
        self._heard_at = time.monotonic()
        if header.type is FrameType.PONG:
            self._note_time(Ping.of(body))
            return
        if header.type is FrameType.FAILED:
            raise self._failed(Failure.of(body).text)
        if header.payload_bytes:
            self._link.incoming.fill([self._plan.payload[: header.payload_bytes]])
        if self._unanswered is not None and body.get("request") == self._unanswered[1]["request"]:
            self._unanswered = None
            self._waiting.answered()
            self._connection.send(
                {"kind": "answer", "type": header.type, "body": body, "offset_ns": self._offset_ns}
            )

    def _failed(self, text: str) -> FerryError:
        """The receiver has failed; if it was only asked whether it takes the run, that is a refusal."""
        if self._unanswered is not None and self._unanswered[0] is FrameType.OPEN:
            return PeerRefused(f"{self._plan.peer.address}: {text}")
        return PeerFailed(f"recv side: {text}")

    def _note_time(self, pong: Ping) -> None:
        """The receiver's clock against ours: the exchange that took least tells most (RFC 5905)."""
        now = time.monotonic_ns()
        taken = now - pong.sent_ns
        if self._round_trip_ns is None or 0 <= taken < self._round_trip_ns:
            self._round_trip_ns = taken
            self._offset_ns = pong.here_ns - (pong.sent_ns + taken // 2)

    def record(self) -> dict[str, Any]:
        trip = self._round_trip_ns
        return {
            "control": {
                "round_trip_ms": None if trip is None else trip / 1e6,
                "clock_offset_ms": None if trip is None else self._offset_ns / 1e6,
                "broken": self._broken,
            }
        }
