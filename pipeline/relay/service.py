"""A relay at work: it listens, makes a session of each migration, and says what became of it."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pipeline.errors import (
    Cancelled,
    FerryError,
    HostError,
    InternalError,
    PeerRefused,
    RunFailed,
    UsageError,
)
from pipeline.net.address import Address, address_of
from pipeline.net.tls import CLIENT, SERVER, Tls
from pipeline.processes.cgroup import usable_cpus
from pipeline.progress import Progress
from pipeline.relay.buffers import Buffers
from pipeline.relay.codec_pool import CodecPool, PoolOptions
from pipeline.relay.control import Control
from pipeline.relay.controller import DestinationController, SourceController
from pipeline.relay.destination_session import DestinationSession
from pipeline.relay.link_wire import FULL_BYTES, LinkWire
from pipeline.relay.metrics import Metrics, Totals
from pipeline.relay.report import cpu_seconds, document
from pipeline.relay.service_manager import notify
from pipeline.relay.session import Session, Shared
from pipeline.relay.sockets import Access
from pipeline.relay.source_session import COMPLETED, UNKNOWN_THERE, SourceSession
from pipeline.relay.wire import Wire
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.protocol import RUN_ID_BYTES, FrameType, Role, pack_frame, pack_json
from pipeline.transports.tcp.server.acceptor import Acceptor, Caller
from qat.probe import ANSWERED, probe

WELCOME_SECONDS = 10.0
LOOK_SECONDS = 0.02
TICK_SECONDS = 0.5
FEWEST_CPUS = 0.5
"""However little the codecs got: they may have waited for each other."""

SAID_OF = {"running": "runs", "postmigrate": "has left", "gone": "its QEMU is gone"}


@dataclass(frozen=True)
class RelayOptions:
    """What a relay was asked to do: `listens` and `to` at the source, `accept` and `delivers` at the
    destination. Paths by the migration's name, which is empty for a single one."""

    listens: dict[str, Address]
    to: Address | None
    delivers: dict[str, Address]
    accept: Address | None
    pool: PoolOptions
    connections: int
    max_bandwidth: int
    tls: Tls | None
    secret: bytes | None
    reconnect_seconds: float
    access: Access
    runs: int
    without_return_path: bool
    qmp: str | None = None
    migrate: bool = False
    multifd: int = 0
    metrics: Address | None = None

    @property
    def side(self) -> str:
        return "source" if self.to is not None else "destination"


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
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._loop.add_signal_handler(number, self._signalled, number)
        self._loop.set_exception_handler(self._fault)
        looker = self._loop.create_task(self._look())
        try:
            await side.listen()
            if options.metrics is not None:
                self._metrics = Metrics(options.metrics, self._totals)
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
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)  # it ends by itself, in a moment
        if self._error is not None:
            raise self._error
        return self.outcomes

    def _totals(self) -> Totals:
        """For a scrape, in another thread: numbers that this one only adds to."""
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
        for session in list(self._sessions):
            session.give_up("the relay was ended" if self._error is None else str(self._error))
        waiting = [session.finished for session in self._sessions]
        if waiting:
            await asyncio.wait(waiting, timeout=3.0)
        await asyncio.sleep(0)

    async def _look(self) -> None:
        """Measure the link, and let auto choose."""
        shared, gone = self._shared, 0
        looked_ns, cpu_ns, starved = time.monotonic_ns(), 0, False
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            waiting = sent = 0
            for session in self._sessions:
                for wire in session.wires.values():
                    try:
                        waiting += wire.unsent_bytes()
                    except OSError:
                        continue
                    sent += wire.sent_bytes
                sent += session.figures.wire_sent_bytes
            shared.link.look(gone + sent - waiting, waiting)
            for session in self._sessions:
                session.out.pace.look(link_is_full=shared.link.is_full())
            auto = shared.pool.auto
            if auto is None or not self._sessions:
                continue
            now_ns, used_ns = time.monotonic_ns(), shared.pool.encode_cpu_ns()
            starves = waiting < FULL_BYTES and shared.pool.backlog() >= self._options.pool.channels
            if starved and starves:
                # QEMUs, their guests, and both relays may share these CPUs.
                auto.see_cpus(max(FEWEST_CPUS, (used_ns - cpu_ns) / (now_ns - looked_ns)))
            elif waiting >= FULL_BYTES and not shared.pool.backlog():
                auto.see_cpus(usable_cpus())
            looked_ns, cpu_ns, starved = now_ns, used_ns, starves
            auto.sample()

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
        cpu = cpu_seconds()
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


class SourceSide:
    """QEMU comes here."""

    def __init__(self, service: Service, options: RelayOptions) -> None:
        self._service, self._options = service, options
        self._listeners: dict[str, socket.socket] = {}
        self._files: dict[str, tuple[int, int] | None] = {}
        self._sessions: dict[str, SourceSession] = {}
        self._silent: dict[str, list[socket.socket]] = {name: [] for name in options.listens}
        self._context: ssl.SSLContext | None = None
        self._controller: SourceController | None = None
        self._control: Control | None = None

    async def listen(self) -> None:
        for name, address in self._options.listens.items():
            listener = self._options.access.listen(address)
            self._listeners[name], self._files[name] = listener, address.file()
            self._service.watch(listener, partial(self._accept, name))
            self._service.say(f"waiting for a source at {address}")
        if self._options.qmp is not None:
            await self._open_qmp(self._options.qmp)

    async def _open_qmp(self, path: str) -> None:
        """Start the migration, or only look on. Raises FerryError."""
        self._control = Control(path)
        await self._control.open()
        (name, address), *_ = self._options.listens.items()
        self._controller = SourceController(
            self._control, str(address), self._options.multifd, self._service.say
        )
        await self._controller.follow()
        if not self._options.migrate:
            return
        session = self._begin(name)
        await asyncio.wait([session.accepted, session.finished], return_when=asyncio.FIRST_COMPLETED)
        if session.is_over:
            return
        try:
            await self._controller.start()
        except RunFailed as error:
            session.give_up(str(error))

    async def settle(self) -> None:
        """In the end: which guest runs, where QEMU can be asked."""
        if self._control is None or self._controller is None:
            return
        status = await self._controller.settle()
        for found in self._service.outcomes.documents[-1:]:
            found["qemu"] = self._controller.figures
        self._service.say(f"the source's guest: {SAID_OF.get(status, status)}")
        await self._control.close()

    def _accept(self, name: str) -> None:
        while True:
            try:
                sock, _ = self._listeners[name].accept()
            except OSError:
                return
            why = self._options.access.refusal(sock)
            if why:
                self._service.warn(f"refused: {why}")
                sock.close()
                continue
            session = self._sessions.get(name)
            if session is not None and not session.is_over:
                session.add_connection(sock)
            elif self._service.draining:
                sock.close()
            else:
                sock.setblocking(False)
                self._silent[name].append(sock)
                self._service.watch(sock, partial(self._speaks, name, sock))

    def _speaks(self, name: str, sock: socket.socket) -> None:
        """A migration begins with its first byte: main's connection came first, and may still be silent. What
        closes without a word was none."""
        try:
            first = sock.recv(1, socket.MSG_PEEK)
        except OSError:
            first = b""
        silent = self._silent[name]
        if not first:
            self._service.unwatch(sock)
            silent.remove(sock)
            sock.close()
            return
        session = self._begin(name)
        self._silent[name] = []
        for one in silent:
            self._service.unwatch(one)
            session.add_connection(one)

    def _begin(self, name: str) -> SourceSession:
        session = SourceSession(
            name,
            secrets.token_bytes(RUN_ID_BYTES),
            self._service.shared,
            self._peer,
            without_return_path=self._options.without_return_path,
            controller=self._controller,
            multifd=self._options.multifd if self._options.migrate else None,
        )
        session.accept_more = partial(self._accept, name)
        self._sessions[name] = session
        self._service.begin(session)
        self._service.say(f"{session.title}: begins")
        return session

    def _peer(self) -> Peer:
        """With the certificates as they are now."""
        options = self._options
        assert options.to is not None
        if options.tls is not None:
            try:
                self._context = options.tls.context(CLIENT)
            except UsageError as error:
                if self._context is None:
                    raise
                self._service.warn(f"{error}; the certificates that were read before stay in use")
        return Peer(
            *(options.to, options.tls, options.reconnect_seconds, WELCOME_SECONDS),
            secret=options.secret,
            context=self._context,
        )

    def close(self) -> None:
        for name, listener in self._listeners.items():
            self._service.unwatch(listener)
            listener.close()
            for sock in self._silent[name]:
                self._service.unwatch(sock)
                sock.close()
            self._options.listens[name].remove(self._files[name])


class DestinationSide:
    """The other relay comes here."""

    def __init__(self, service: Service, options: RelayOptions) -> None:
        self._service, self._options = service, options
        self._sessions: dict[bytes, DestinationSession] = {}
        self._gone: dict[bytes, str] = {}
        self._ticker: asyncio.TimerHandle | None = None
        self._control: Control | None = None
        self._controller: DestinationController | None = None

    async def listen(self) -> None:
        options, service = self._options, self._service
        assert options.accept is not None
        if options.qmp is not None:
            self._control = Control(options.qmp)
            await self._control.open()
            self._controller = DestinationController(self._control, service.say)
        try:
            self._listener = options.accept.listen()
            self._file = options.accept.file()
        except OSError as error:
            raise HostError(f"--accept {options.accept}: {error.strerror or error}") from error
        tls = None if options.tls is None else (options.tls, options.tls.context(SERVER))
        self._acceptor = Acceptor(service, self._listener, tls, options.secret, self._welcome, service.say)
        self._ticker = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)
        service.say(f"waiting for the source's relay at {address_of(self._listener)}")

    def _tick(self) -> None:
        self._acceptor.tick()
        if self._options.tls is not None:
            try:
                self._acceptor.renew(self._options.tls.context(SERVER))
            except UsageError:
                pass  # those that were read before stay in use
        self._ticker = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _welcome(self, caller: Caller) -> None:
        hello = caller.hello
        if hello.role is not Role.RELAY:
            caller.refuse(
                "a relay is here, python -m pipeline.relay; it takes no guest's RAM of pipeline.send"
            )
            return
        session, fresh = self._sessions.get(hello.run_id), False
        if session is None:
            if hello.run_id in self._gone:
                caller.refuse(self._gone[hello.run_id])
                return
            if self._service.draining:
                caller.refuse("this relay takes no new migration", busy=True)
                return
            session, fresh = self._begin(hello.run_id, caller), True
        body = pack_json({"fresh": fresh})
        try:
            caller.sock.send(pack_frame(FrameType.WELCOME, caller.sent + 1, body, version=caller.version))
        except OSError:
            caller.sock.close()
            return
        handlers = session.on_frame, session.on_room, session.on_lost
        take = self._service.shared.buffers.take
        session.attach(Wire(hello.number, hello.generation, caller.sock, *handlers, take))

    def _begin(self, migration_id: bytes, caller: Caller) -> DestinationSession:
        cpu = cpu_seconds()
        session = DestinationSession(
            migration_id,
            self._service.shared,
            self._path_of,
            lambda session: self._service.report(session, cpu),
            self._controller,
        )
        self._sessions[migration_id] = session
        session.finished.add_done_callback(lambda _: self._ended(session))
        self._service.begin(session)
        self._service.say(f"migration from {caller.name}: begins")
        return session

    def _ended(self, session: DestinationSession) -> None:
        del self._sessions[session.id]
        words = "completed" if session.outcome == COMPLETED else f"it has ended: {session.outcome}"
        self._gone[session.id] = words[:200]

    async def settle(self) -> None:
        """In the end: which guest runs, where QEMU can be asked."""
        if self._control is None or self._controller is None:
            return
        status = await self._controller.status()
        self._service.say(f"the destination's guest: {SAID_OF.get(status, status)}")
        await self._control.close()

    def _path_of(self, name: str) -> str:
        address = self._options.delivers[name]
        if any(one.name == name and not one.is_over for one in self._sessions.values() if one.is_begun):
            raise ValueError(f"a migration {name} goes on here already".replace("  ", " "))
        return address.path

    def close(self) -> None:
        if self._ticker is None:
            return
        self._ticker.cancel()
        self._acceptor.close()
        self._listener.close()
        assert self._options.accept is not None
        self._options.accept.remove(self._file)


def error_of(outcomes: Outcomes) -> FerryError | None:
    """What a command that has ended raises: that of the last migration that failed."""
    failed = outcomes.failed
    if failed is None:
        return None
    text = str(failed["error"])
    return PeerRefused(text) if UNKNOWN_THERE in text or " refuses" in text else RunFailed(text)


def threads_by_default() -> int:
    """As many as there are CPUs that may be used."""
    return max(1, int(usable_cpus()))
