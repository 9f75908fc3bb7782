"""Control on the receive side: a process that stands between the session and the connection.

It answers PING by itself, so that a session which computes digests is not taken for dead, and notices
when the sender is gone.
"""

from __future__ import annotations

import os
import select
import time
from dataclasses import dataclass
from typing import Any

from guestmem.ipc import Connection, PeerGone
from guestmem.segment import create_segment, map_segment
from pipeline.errors import BadFrame, ConnectionLost
from pipeline.processes.usage import Usage, usage_message
from pipeline.transports.tcp.link import Link
from pipeline.transports.tcp.messages import Failure, Ping
from pipeline.transports.tcp.protocol import STALL_SECONDS, FrameLimits, FrameType

REQUESTS = FrameLimits(
    frozenset(
        {
            FrameType.OPEN,
            FrameType.PING,
            FrameType.SETTLE,
            FrameType.VERIFY,
            FrameType.VERIFY_PAGES,
            FrameType.COMMIT,
            FrameType.FINISH,
            FrameType.FAILED,
        }
    )
)
TICK_SECONDS = 0.25


@dataclass(frozen=True)
class ControlServerPlan:
    """The body of WELCOME."""

    welcome: dict[str, Any]


def run_control_server(connection: Connection, plan: ControlServerPlan, link: Link) -> None:
    """Welcome the sender, then relay until one side ends. How it ended is the last thing said."""
    before = Usage.now()
    answering = _ControlServer(connection, link)
    end = {"why": "", "bad": False}
    try:
        link.send(FrameType.WELCOME, plan.welcome)
        while answering.turn():
            pass
    except ConnectionLost as error:
        end["why"] = str(error)
    except BadFrame as error:
        end = {"why": f"control: {error}", "bad": True}
        answering.say_failed(str(end["why"]))
    except PeerGone:
        return
    connection.send({**usage_message(before, ""), **end})


def send_answer(to: Connection, type_: FrameType, body: dict[str, Any], payload: bytes) -> None:
    """For the session: an answer, with a payload in shared memory if there is one."""
    descriptors: tuple[int, ...] = ()
    if payload:
        descriptors = (create_segment("answer", len(payload), reserve=True),)
        os.pwrite(descriptors[0], payload, 0)
    try:
        to.send({"kind": "answer", "type": type_, "body": body}, descriptors)
    except PeerGone:
        pass  # asked again over the next connection, it is answered again
    for fd in descriptors:
        os.close(fd)


class _ControlServer:
    """The relay."""

    def __init__(self, connection: Connection, link: Link) -> None:
        self._connection = connection
        self._link = link
        self._heard_at = time.monotonic()

    def turn(self) -> bool:
        """One thing in either direction; whether there may be another. Raises ConnectionLost, BadFrame."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(self._link, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(0 if self._link.pending() else TICK_SECONDS * 1000)]
        if self._connection.fileno() in ready and not self._answer():
            return False
        if self._link.pending() or self._link.fileno() in ready:
            self._hear()
        elif time.monotonic() - self._heard_at > STALL_SECONDS:
            raise ConnectionLost(f"stalled: nothing was heard for {STALL_SECONDS:g} s")
        return True

    def _hear(self) -> None:
        header = self._link.header(REQUESTS)
        body = self._link.json(header)
        self._heard_at = time.monotonic()
        if header.type is FrameType.PING:
            ping = Ping.of(body)
            self._link.send(FrameType.PONG, Ping(ping.sent_ns, time.monotonic_ns()).body())
            return
        self._connection.send({"kind": "request", "type": header.type, "body": body})

    def _answer(self) -> bool:
        """Pass on what the session says; False when that is the end."""
        message, descriptors = self._connection.receive()
        if message["kind"] == "failed":
            self.say_failed(str(message["text"]))
            return False
        payload = [memoryview(map_segment(fd, writable=False)) for fd in descriptors]
        for fd in descriptors:
            os.close(fd)
        self._link.send(FrameType(message["type"]), message["body"], payload)
        return True

    def say_failed(self, text: str) -> None:
        """The run is over, if the sender still hears it."""
        try:
            self._link.send(FrameType.FAILED, Failure(text).body())
            self._link.close()
        except ConnectionLost:
            pass
