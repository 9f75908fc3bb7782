"""The destination's side of a relay: the other relay comes here."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from pipeline.errors import HostError
from pipeline.net.address import address_of
from pipeline.net.certificates import Certificates
from pipeline.net.tls import SERVER
from pipeline.processes.usage import Usage
from pipeline.relay.control import Control
from pipeline.relay.controller import DestinationController, say_of
from pipeline.relay.destination_session import DestinationSession
from pipeline.relay.options import RelayOptions
from pipeline.relay.session import COMPLETED
from pipeline.relay.wire import Wire
from pipeline.transports.tcp.probe import MAX_PROBE_CONNECTIONS, REFUSED_BUSY, REFUSED_MANY
from pipeline.transports.tcp.protocol import FrameType, Role, pack_frame, pack_json
from pipeline.transports.tcp.server.acceptor import Acceptor, Caller
from pipeline.transports.tcp.server.probe_server import serve_probe

if TYPE_CHECKING:
    from pipeline.relay.service import Service

TICK_SECONDS = 0.5


class DestinationSide:
    """The other relay comes here."""

    def __init__(self, service: Service, options: RelayOptions) -> None:
        self._service, self._options = service, options
        self._sessions: dict[bytes, DestinationSession] = {}
        self._gone: dict[bytes, str] = {}
        self._probes: dict[threading.Thread, socket.socket] = {}
        self._ticker: asyncio.TimerHandle | None = None
        self._control: Control | None = None
        self._controller: DestinationController | None = None

    async def listen(self) -> None:
        options, service = self._options, self._service
        assert options.accept is not None
        if options.qmp is not None:
            self._control = Control(options.qmp)
            await self._control.open()
            self._controller = DestinationController(self._control)
        try:
            self._listener = options.accept.listen()
            self._file = options.accept.file()
        except OSError as error:
            raise HostError(f"--accept {options.accept}: {error.strerror or error}") from error
        tls = None
        if options.tls is not None:
            tls = options.tls, Certificates(options.tls, SERVER, service.warn).context
        self._acceptor = Acceptor(service, self._listener, tls, options.secret, self._welcome, service.say)
        self._ticker = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)
        service.say(f"waiting for the source's relay at {address_of(self._listener)}")

    def _tick(self) -> None:
        self._acceptor.tick()
        self._ticker = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _welcome(self, caller: Caller) -> None:
        hello = caller.hello
        if hello.role is Role.PROBE:
            self._welcome_probe(caller)
            return
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

    def _welcome_probe(self, caller: Caller) -> None:
        """The link is measured while no migration is here, by a thread; the relay waits on."""
        self._probes = {probe: sock for probe, sock in self._probes.items() if probe.is_alive()}
        if self._sessions or self._service.draining:
            caller.refuse(REFUSED_BUSY, busy=True)
        elif len(self._probes) >= MAX_PROBE_CONNECTIONS:
            caller.refuse(REFUSED_MANY, busy=True)
        else:
            probe = threading.Thread(target=serve_probe, args=(caller.link(),), daemon=True)
            self._probes[probe] = caller.sock
            probe.start()

    def _end_probes(self) -> None:
        """Their threads see the end of their connections."""
        for sock in self._probes.values():
            with contextlib.suppress(OSError):
                # Not the TLS object's own, which belongs to the thread.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _begin(self, migration_id: bytes, caller: Caller) -> DestinationSession:
        self._end_probes()
        cpu = Usage.now().cpu_seconds
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
        words = COMPLETED if session.outcome == COMPLETED else f"it has ended: {session.outcome}"
        self._gone[session.id] = words[:200]

    async def settle(self) -> None:
        """In the end: which guest runs, where QEMU can be asked."""
        if self._control is None or self._controller is None:
            return
        status = await self._controller.status()
        self._service.say(f"the destination's guest: {say_of(status)}")
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
        self._end_probes()
        self._acceptor.close()
        self._listener.close()
        assert self._options.accept is not None
        self._options.accept.remove(self._file)
