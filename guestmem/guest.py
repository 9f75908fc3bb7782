"""The guest process: it owns the source RAM, writes to it, and obeys its migration.

    migration                         guest
        ----- open, which log -------->
        <----------- ready ------------   descriptors of RAM and shared log; or refused, and why
        ------------ run ------------->   writes
        ------------ pause ----------->   finishes the batch in hand, marks it
        <------- state: paused --------   nothing is written from here on
        ------------ run ------------->
        <------- state: running -------
        ------------ throttle -------->   0 to 99 per cent
        ------------ ask ------------->   for its counters, and its slowest second of an interval

Every order is answered with a `state` and the counters. The guest has an owner, who started it
and with whom it ends, and may have a name under which one visitor at a time can open it. When a
visitor is gone, however it went, the guest runs at full speed, unwatched, as before.
"""

from __future__ import annotations

import os
import re
import select
import socket
import struct
import time
from dataclasses import dataclass, field

import numpy as np

from guestmem.content import Content
from guestmem.dirty_log.logs import SharedDirtyLog, Unmarked
from guestmem.dirty_log.write_protect import NoKernelLog, register
from guestmem.ipc import Connection, Message, PeerGone
from guestmem.prefault import populate
from guestmem.ram import GuestRam
from guestmem.workload import Workload
from guestmem.writer import MAX_THROTTLE_PERCENT, Writer

LOGS = ("auto", "kernel", "shared")
UNWATCHED = "none"
"""What an owner opens who only keeps the guest running: others may watch it."""

VALID_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
PEER_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True)
class GuestSpec:
    """What guest to make: its size, what fills it, how it writes, and a name, if any."""

    size_bytes: int
    content: Content
    workload: Workload
    name: str | None = None


def socket_address(name: str) -> str:
    """Where a named guest listens: an abstract socket, which goes with its process."""
    return f"\0ramferry-guest-{name}"


class GuestExists(Exception):
    """Another guest has this name."""


class NoSuchGuest(Exception):
    """No guest of this name answers, or it belongs to somebody else."""


def visit(name: str) -> Connection:
    """Connect to a named guest. Raises NoSuchGuest."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(socket_address(name))
    except OSError as error:
        sock.close()
        raise NoSuchGuest(f"no guest named {name} answers ({error.strerror})") from error
    if _peer_uid(sock) not in (os.geteuid(), 0):
        sock.close()
        raise NoSuchGuest(f"the guest named {name} belongs to another user")
    return Connection(sock)


def _peer_uid(sock: socket.socket) -> int:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size)
    return int(PEER_CREDENTIALS.unpack(raw)[1])


def run_guest(owner: Connection, spec: GuestSpec) -> None:
    """Make the guest and serve it until its owner is gone.

    Raises GuestExists, NoMemoryBehind, OSError (content that cannot be read) before it serves.
    """
    listener = None
    if spec.name is not None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listener.bind(socket_address(spec.name))
        except OSError as error:
            raise GuestExists(f"a guest named {spec.name} exists already") from error
        listener.listen(1)  # a visitor may come early, and waits
    Guest(spec).serve(owner, listener)


@dataclass(eq=False)
class _Talk:
    """One connection, and what it has opened."""

    connection: Connection
    refusal: str = ""
    kernel_log: int | None = field(default=None)


class Guest:
    """RAM, writer and the orders they obey."""

    def __init__(self, spec: GuestSpec) -> None:
        self._ram = GuestRam.create(spec.size_bytes, "source")
        populate(self._ram.mapping, write=True)
        self._log = SharedDirtyLog.create(self._ram.pages)
        spec.content.fill(self._ram)
        if spec.workload.self_checking:
            self._ram.words.view(np.uint8)[:, 0] = 0
        self._spec = spec
        pool = spec.content.pool(self._ram)
        self._writer = Writer(self._ram, self._log, pool, spec.workload)
        self._watched_by: _Talk | None = None
        self._running = False
        self._written_seconds = 0.0
        self._since = time.monotonic()

    def serve(self, owner: Connection, listener: socket.socket | None) -> None:
        """Write and obey, until the owner is gone."""
        talks = [_Talk(owner)]
        while True:
            rest = self._writer.work() if self._running else None
            waiting: list[Connection | socket.socket] = [talk.connection for talk in talks]
            if listener is not None:
                waiting.append(listener)
            readable, _, _ = select.select(waiting, [], [], rest)
            for talk in [talk for talk in talks if talk.connection in readable]:
                try:
                    self._obey(talk)
                except (PeerGone, ValueError, KeyError, TypeError):  # gone, or talks nonsense
                    if talk.connection is owner:
                        return
                    talks.remove(talk)
                    self._forget(talk)
            if listener is not None and listener in readable:
                self._welcome(listener, talks)

    def _welcome(self, listener: socket.socket, talks: list[_Talk]) -> None:
        sock, _ = listener.accept()
        talk = _Talk(Connection(sock))
        if _peer_uid(sock) not in (os.geteuid(), 0):
            talk.refusal = "it belongs to another user"
        elif any(not other.refusal for other in talks[1:]):
            talk.refusal = "it is busy with another visitor"
        talks.append(talk)

    def _forget(self, talk: _Talk) -> None:
        """A visitor is gone: full speed, unwatched."""
        talk.connection.close()
        if talk.refusal:
            return
        self._unwatch(talk)
        self._writer.throttle_percent = 0
        if not self._running:
            self._run()

    def _obey(self, talk: _Talk) -> None:
        order, descriptors = talk.connection.receive()
        for descriptor in descriptors:
            os.close(descriptor)
        kind = order["kind"]
        if talk.refusal:
            # Said in answer to an order: closing with one unread would break off the answer.
            talk.connection.send({"kind": "refused", "text": talk.refusal})
            raise PeerGone("refused")
        if kind == "open":
            if order.get("log") != UNWATCHED and self._watched_by not in (None, talk):
                talk.connection.send({"kind": "refused", "text": "its writes are being watched already"})
                return
            self._open(talk, str(order.get("log")))
            return
        if kind == "run" and not self._running:
            self._run()
        elif kind == "pause" and self._running:
            self._pause()
        elif kind == "throttle":
            percent = int(order["percent"])
            self._writer.throttle_percent = max(0, min(percent, MAX_THROTTLE_PERCENT))
        talk.connection.send(self._state(order))

    def _run(self) -> None:
        self._running = True
        self._since = time.monotonic()
        self._writer.restart_clock()
        self._writer.timeline.note()

    def _pause(self) -> None:
        self._running = False
        self._written_seconds += time.monotonic() - self._since
        self._writer.timeline.note()

    def _state(self, order: Message) -> Message:
        seconds = self._written_seconds
        if self._running:
            seconds += time.monotonic() - self._since
        slowest = None
        if order["kind"] == "ask" and "since" in order:
            self._writer.timeline.note()
            slowest = self._writer.timeline.slowest_second(float(order["since"]), float(order["until"]))
        return {
            "kind": "state",
            "state": "running" if self._running else "paused",
            "writes": self._writer.writes,
            "written_bytes": self._writer.timeline.total_bytes,
            "written_seconds": seconds,
            "rate_asked": self._writer.rate_asked(),
            "throttle_percent": self._writer.throttle_percent,
            "slowest_second_bytes": slowest,
        }

    def _open(self, talk: _Talk, log: str) -> None:
        """Answer `open`: which log the visitor gets, or why none."""
        self._unwatch(talk)
        used = "shared"
        if log in ("auto", "kernel"):
            try:
                talk.kernel_log = register(self._ram.words.ctypes.data, self._ram.size_bytes)
                used = "kernel"
            except NoKernelLog as error:
                if log == "kernel":
                    talk.connection.send({"kind": "refused", "text": str(error)})
                    return
        if log != UNWATCHED:
            self._writer.marks = self._log if used == "shared" else Unmarked()
            self._watched_by = talk
        talk.connection.send(
            {
                "kind": "ready",
                "log": used,
                "pid": os.getpid(),
                "address": self._ram.words.ctypes.data,
                "self_checking": self._spec.workload.self_checking,
                "state": "running" if self._running else "paused",
            },
            (self._ram.fd, self._log.fd),
        )

    def _unwatch(self, talk: _Talk) -> None:
        if talk.kernel_log is not None:
            os.close(talk.kernel_log)  # the kernel forgets the registration with it
            talk.kernel_log = None
        if self._watched_by is talk:
            self._writer.marks = self._log
            self._watched_by = None
