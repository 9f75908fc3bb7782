"""The guest process: it owns the source RAM, writes to it, and obeys its migration.

    migration                         guest
        <--------- filling ------------   to its owner, while its RAM is filled: the share, 0 to 1
        ------ open, which log ------->
        <----------- ready ------------   descriptors of RAM and of the log; or
        <----------- no-log -----------   why this log cannot be had; another may be asked for; or
        <---------- refused -----------   why the guest cannot be opened at all
        ------------ run ------------->   writes
        ---- pause, lease n, for s --->   finishes the batch in hand, marks it
        <------- state: paused --------   nothing is written from here on, for s seconds
        ----------- renew n ---------->   for s more seconds, if lease n still holds
        ----------- hold n ----------->   without end, if lease n still holds: the guest runs elsewhere
        ------------ run ------------->
        <------- state: running -------   `lease` is the one that held until now, 0 if it had run out
        ---------- throttle ---------->   0 to 99 per cent
        ------------ ask ------------->   for its counters, and its slowest second of an interval

Every order but `open` is answered with `state` and the counters. The guest has an owner, which
started it and with which it ends. If it has a name, one visitor at a time can open it by that name.
When a visitor is gone, for whatever reason, the guest runs at full speed and unwatched again. When one
is there but does nothing (stopped, stuck, on a host that swaps), the guest's own lease frees it: it runs
again, and says so, so that nothing is committed that was sent under a lease that had run out.
"""

from __future__ import annotations

import math
import os
import re
import select
import socket
import time
from dataclasses import dataclass

import numpy as np

from guestmem.content import Content
from guestmem.dirty_log import KINDS
from guestmem.dirty_log.contract import GuestLog, NoDirtyLog, Unwatched
from guestmem.images import OnShare
from guestmem.ipc import Connection, Message, PeerGone
from guestmem.names import end_guard
from guestmem.numa import nodes_of
from guestmem.prefault import huge_bytes_of, populate_by_all_cores
from guestmem.ram import GuestRam
from guestmem.trace import Replay, load_trace
from guestmem.users import is_trusted
from guestmem.workload import Workload
from guestmem.writer import MAX_THROTTLE_PERCENT, Writer

UNWATCHED = "none"
"""The log that an owner asks for who only keeps the guest running; others may then watch it."""

VALID_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")

FILLING_SECONDS = 0.1
"""From one `filling` message to the next, at least."""

MAX_CLIENTS = 8
"""Connections at most: the owner's, a visitor's, and some that are told that the guest is busy."""

ACCEPT_AGAIN_SECONDS = 0.1
"""How long nobody is let in when there is no descriptor for another connection."""

NO_LEASE = 0

POPULATE_SHARE = 0.9
"""The part of the work of filling that is the first touch: of a GiB on an AMD EPYC (2026) it took
1.6 to 3.3 s, and repeating a corpus over it 0.10 to 0.13 s."""


@dataclass(frozen=True)
class GuestSpec:
    """The guest to make: its size, what fills it, how it writes, and a name, if any.

    `huge_pages`: its RAM lies in huge pages, where the kernel makes them.
    """

    size_bytes: int
    content: Content
    workload: Workload
    name: str | None = None
    huge_pages: bool = True


class GuestExists(Exception):
    """Another guest has this name."""


class NoSuchGuest(Exception):
    """No guest of this name answers, or it belongs to another user."""


def socket_address(name: str) -> str:
    """Where a named guest listens: an abstract socket (unix(7)), which ends with its process."""
    return f"\0ramferry-guest-{name}"


def visit(name: str) -> Connection:
    """Connect to a named guest of this user's or of root's. Raises NoSuchGuest."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(socket_address(name))
    except OSError as error:
        sock.close()
        raise NoSuchGuest(f"no guest named {name} answers ({error.strerror})") from error
    connection = Connection(sock)
    if not _trusted(connection):
        connection.close()
        raise NoSuchGuest(f"the guest named {name} belongs to another user")
    return connection


def _trusted(connection: Connection) -> bool:
    _, uid = connection.peer()
    return is_trusted(uid)


def run_guest(owner: Connection, spec: GuestSpec) -> None:
    """Make the guest and serve it until its owner is gone.

    Before it serves, raises GuestExists, NoMemoryBehind, OSError (content that cannot be read, or
    no shared memory), ImageChanged.
    """
    listener = None
    if spec.name is not None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listener.bind(socket_address(spec.name))
        except OSError as error:
            raise GuestExists(f"a guest named {spec.name} exists already") from error
        listener.listen(1)  # a visitor may come while the guest is made, and waits
    try:
        guest = Guest(spec, _FillingReports(owner))
    except PeerGone:
        return
    end_guard()  # a guest is killed in the end, and then nobody would reap its guard
    guest.serve(owner, listener)


class _FillingReports:
    """Tells the owner how far the guest's RAM is filled. Raises PeerGone."""

    def __init__(self, owner: Connection) -> None:
        self._owner = owner
        self._next = time.monotonic()

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + FILLING_SECONDS
            self._owner.send({"kind": "filling", "share": share})


@dataclass(eq=False)
class _Client:
    """The owner or a visitor, and the log it has opened."""

    connection: Connection
    refusal: str = ""
    log: GuestLog | None = None


class Guest:
    """RAM, writer and the orders they obey."""

    def __init__(self, spec: GuestSpec, on_filling: OnShare) -> None:
        """Make the guest, paused. `on_filling` is told how far its RAM is filled, 0 to 1.

        Raises what `run_guest` says, and what `on_filling` raises.
        """
        ram = GuestRam.create(spec.size_bytes, "source")
        populate_by_all_cores(
            ram.mapping,
            huge=spec.huge_pages,
            on_share=lambda share: on_filling(POPULATE_SHARE * share),
        )
        spec.content.fill(ram, lambda share: on_filling(POPULATE_SHARE + (1 - POPULATE_SHARE) * share))
        self._huge_bytes = huge_bytes_of(ram.mapping)
        self._nodes = nodes_of(ram.mapping)
        self._ram = self._by_page(ram) if self._huge_bytes else ram
        if spec.workload.self_checking:
            self._ram.words.view(np.uint8)[:, 0] = 0
        self._spec = spec
        self._writer = self._open_writer(spec)
        self._watched_by: _Client | None = None
        self._accept_again_at = 0.0
        self._running = False
        self._written_seconds = 0.0
        self._since = time.monotonic()
        self._lease, self._lease_ends = NO_LEASE, math.inf

    def _open_writer(self, spec: GuestSpec) -> Writer | Replay:
        if spec.workload.trace is not None:
            return Replay(self._ram, Unwatched(), load_trace(spec.workload.trace))
        return Writer(self._ram, Unwatched(), spec.content.pool(self._ram), spec.workload)

    def _by_page(self, ram: GuestRam) -> GuestRam:
        """A mapping in which the guest writes, page by page: the kernel's log notes what one entry of a page
        table maps, and of a huge page that is 2 MiB (100 writes made 47,616 pages dirty on Linux 6.18)."""
        small = ram.remap(writable=True, small_pages=True)
        populate_by_all_cores(small.mapping, huge=False, on_share=lambda share: None)
        return small

    def serve(self, owner: Connection, listener: socket.socket | None) -> None:
        """Write and obey until the owner is gone."""
        clients = {owner.fileno(): _Client(owner)}
        waiting = select.poll()
        waiting.register(owner, select.POLLIN)
        if listener is not None:
            listener.setblocking(False)
        while True:
            rest = self._writer.work() if self._running else self._stand()
            accept_fd = self._accept_fd(listener, waiting, len(clients))
            for fd, _ in waiting.poll(None if rest is None else math.ceil(rest * 1e3)):
                if fd == accept_fd:
                    assert listener is not None
                    self._accept(listener, clients, waiting)
                elif not self._hear(clients[fd]):
                    if fd == owner.fileno():
                        return
                    waiting.unregister(fd)
                    self._forget(clients.pop(fd))

    def _accept_fd(self, listener: socket.socket | None, waiting: select.poll, clients: int) -> int | None:
        """The listener's descriptor while another may come in."""
        if listener is None:
            return None
        if clients < MAX_CLIENTS and time.monotonic() >= self._accept_again_at:
            waiting.register(listener, select.POLLIN)
            return listener.fileno()
        try:
            waiting.unregister(listener)
        except KeyError:
            pass  # it was not
        return None

    def _accept(self, listener: socket.socket, clients: dict[int, _Client], waiting: select.poll) -> None:
        """Let somebody in; strangers are sent away at once, unheard."""
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError:
            self._accept_again_at = time.monotonic() + ACCEPT_AGAIN_SECONDS
            return
        client = _Client(Connection(sock))
        if not _trusted(client.connection):
            client.connection.close()
            return
        if any(not other.refusal for other in list(clients.values())[1:]):
            client.refusal = "it is busy with another visitor"
        clients[sock.fileno()] = client
        waiting.register(sock, select.POLLIN)

    def _hear(self, client: _Client) -> bool:
        """Obey a client's order; False when it is gone, or sends nonsense."""
        try:
            self._obey(client)
        except (PeerGone, ValueError, KeyError, TypeError, OverflowError):
            return False
        return True

    def _stand(self) -> float | None:
        """While paused: seconds until the lease runs out, None without one. Runs when it has."""
        left = self._lease_ends - time.monotonic()
        if left <= 0:
            self._run()
            return 0.0
        return None if left == math.inf else left

    def _forget(self, client: _Client) -> None:
        """A visitor is gone: run at full speed, unwatched."""
        client.connection.close()
        if client.refusal:
            return
        self._unwatch(client)
        self._writer.throttle_percent = 0
        if not self._running:
            self._run()

    def _obey(self, client: _Client) -> None:
        order, descriptors = client.connection.receive()
        for descriptor in descriptors:
            os.close(descriptor)
        kind = order["kind"]
        if client.refusal:
            # Only in answer to an order: closing with one unread would cut the answer off.
            client.connection.send({"kind": "refused", "text": client.refusal})
            raise PeerGone("refused")
        if kind == "open":
            self._open(client, str(order["log"]))
            return
        held = self._lease
        if kind == "run" and not self._running:
            self._run()
        elif kind == "pause":
            self._pause(int(order.get("lease", NO_LEASE)), float(order.get("seconds", math.inf)))
            held = self._lease
        elif kind == "renew" and int(order["lease"]) == held != NO_LEASE:
            self._lease_ends = time.monotonic() + float(order["seconds"])
        elif kind == "hold" and int(order["lease"]) == held != NO_LEASE:
            self._lease_ends = math.inf
        elif kind == "throttle":
            percent = int(order["percent"])
            self._writer.throttle_percent = max(0, min(percent, MAX_THROTTLE_PERCENT))
        client.connection.send({**self._state(order), "lease": held})

    def _run(self) -> None:
        self._running = True
        self._lease, self._lease_ends = NO_LEASE, math.inf
        self._since = time.monotonic()
        self._writer.restart_clock()
        self._writer.timeline.note()

    def _pause(self, lease: int, seconds: float) -> None:
        """Stand still under a lease of so many seconds; without one until an order comes."""
        self._lease = lease
        self._lease_ends = time.monotonic() + seconds if lease != NO_LEASE else math.inf
        if self._running:
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

    def _open(self, client: _Client, name: str) -> None:
        """Answer `open`: give the client RAM and the log, or say why not."""
        self._unwatch(client)
        log: GuestLog | None = None
        if name != UNWATCHED:
            if self._watched_by is not None:
                client.connection.send({"kind": "refused", "text": "its writes are being watched already"})
                return
            try:
                log = KINDS[name].create(self._ram)
                end_guard()
            except NoDirtyLog as error:
                client.connection.send({"kind": "no-log", "text": str(error)})
                return
            self._watch(client, log)
        client.connection.send(
            {
                "kind": "ready",
                "log": name,
                "log_fields": dict(log.fields) if log else {},
                "self_checking": self._spec.workload.self_checking,
                "huge_bytes": self._huge_bytes,
                "bytes_by_node": {str(node): size for node, size in self._nodes.items()},
                "state": "running" if self._running else "paused",
            },
            (self._ram.fd, *(log.descriptors if log else ())),
        )

    def _watch(self, client: _Client, log: GuestLog) -> None:
        client.log = log
        self._writer.marks = log
        self._watched_by = client

    def _unwatch(self, client: _Client) -> None:
        if client.log is None:
            return
        self._writer.marks = Unwatched()
        self._watched_by = None
        client.log.close()
        client.log = None
