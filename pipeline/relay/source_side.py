"""The source's side of a relay: QEMU comes here."""

from __future__ import annotations

import asyncio
import secrets
import socket
from functools import partial
from typing import TYPE_CHECKING

from pipeline.errors import RunFailed
from pipeline.net.certificates import Certificates
from pipeline.net.tls import CLIENT
from pipeline.relay.control import Control
from pipeline.relay.controller import SourceController, say_of
from pipeline.relay.options import RelayOptions
from pipeline.relay.source_session import SourceSession
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.protocol import RUN_ID_BYTES

if TYPE_CHECKING:
    from pipeline.relay.service import Service

WELCOME_SECONDS = 10.0


class SourceSide:
    """QEMU comes here."""

    def __init__(self, service: Service, options: RelayOptions) -> None:
        self._service, self._options = service, options
        self._listeners: dict[str, socket.socket] = {}
        self._files: dict[str, tuple[int, int] | None] = {}
        self._sessions: dict[str, SourceSession] = {}
        self._silent: dict[str, list[socket.socket]] = {name: [] for name in options.listens}
        tls = options.tls
        self._certificates = None if tls is None else Certificates(tls, CLIENT, service.warn)
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
        self._controller.follow()
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
        self._service.say(f"the source's guest: {say_of(status)}")
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
        return Peer(
            *(options.to, options.tls, options.reconnect_seconds, WELCOME_SECONDS),
            secret=options.secret,
            context=None if self._certificates is None else self._certificates.context(),
        )

    def close(self) -> None:
        for name, listener in self._listeners.items():
            self._service.unwatch(listener)
            listener.close()
            for sock in self._silent[name]:
                self._service.unwatch(sock)
                sock.close()
            self._options.listens[name].remove(self._files[name])
