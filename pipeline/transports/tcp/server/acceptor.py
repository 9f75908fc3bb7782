"""Who comes in: accept, the TLS handshake, HELLO. Nothing else is done for a peer that is not known.

Until its HELLO is whole a peer costs a socket, OpenSSL's state, 56 bytes of ours, and HELLO_SECONDS at
most; so many at a time, and only some of them from one address.
"""

from __future__ import annotations

import errno
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import BadFrame
from pipeline.net.address import name_of
from pipeline.net.tls import Tls, fingerprint, tls_reason
from pipeline.processes.supervisor import Supervisor
from pipeline.transports.tcp.link import Link, prepare
from pipeline.transports.tcp.messages import Refusal
from pipeline.transports.tcp.protocol import (
    HEADER,
    HELLO,
    HELLO_LIMITS,
    HELLO_SECONDS,
    FrameType,
    Hello,
    check_body,
    pack_frame,
    pack_json,
    read_header,
    read_hello,
)

MAX_PENDING, MAX_PENDING_OF_ONE = 128, 80
"""Handshakes under way; 64 channels and control may call at the same moment."""

HELLO_FRAME_BYTES = HEADER.size + HELLO.size


@dataclass(frozen=True)
class Caller:
    """Somebody who said HELLO. `identity` is the hash of the certificate, or nothing without TLS."""

    name: str
    sock: socket.socket
    hello: Hello
    identity: bytes

    def link(self) -> Link:
        """For the process that will speak with it: one frame has been read."""
        return Link(self.sock, received=1)

    def refuse(self, text: str, *, busy: bool = False) -> None:
        frame = pack_frame(FrameType.REFUSED, 1, pack_json(Refusal(text, busy).body()))
        _last_words(self.sock, frame)


class Acceptor:
    """All connections that have not said HELLO yet."""

    def __init__(
        self,
        supervisor: Supervisor,
        listener: socket.socket,
        tls: tuple[Tls, ssl.SSLContext] | None,
        welcome: Callable[[Caller], None],
        say: Callable[[str], None],
    ) -> None:
        """`welcome` takes the callers; `say` a line about each that is sent away."""
        self._supervisor = supervisor
        self._listener = listener
        self._tls = tls
        self._welcome = welcome
        self._say = say
        self._handshakes: list[_Handshake] = []
        listener.setblocking(False)
        supervisor.watch(listener, self._accept)

    def _accept(self) -> None:
        try:
            sock, peer = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(0.05)
            return
        host = str(peer[0]) if isinstance(peer, tuple) else ""
        from_one = sum(handshake.host == host for handshake in self._handshakes)
        if len(self._handshakes) >= MAX_PENDING or from_one >= MAX_PENDING_OF_ONE:
            sock.close()
            return
        try:
            handshake = _Handshake(self, sock, name_of(peer), host)
        except OSError:
            sock.close()  # reset before it said anything
            return
        self._handshakes.append(handshake)
        handshake.go_on()

    def tick(self) -> None:
        """Send away who takes too long."""
        now = time.monotonic()
        for handshake in [handshake for handshake in self._handshakes if now > handshake.deadline]:
            self.send_away(handshake, f"no hello within {HELLO_SECONDS:g} s ({handshake.got} bytes came)")

    def send_away(self, handshake: _Handshake, why: str) -> None:
        self.forget(handshake)
        self._say(f"refused {handshake.name}: {why}")
        refusal = pack_frame(FrameType.REFUSED, 1, pack_json(Refusal(why[:200], False).body()))
        _last_words(handshake.sock, refusal if handshake.secured else b"")

    def forget(self, handshake: _Handshake) -> None:
        """It is no longer at the door."""
        self._handshakes.remove(handshake)
        handshake.unwatch()

    def let_in(self, handshake: _Handshake, hello: Hello) -> None:
        """Check the name, and hand over."""
        identity = b""
        if self._tls is not None:
            assert isinstance(handshake.sock, ssl.SSLSocket)
            why = self._tls[0].name_refusal(handshake.sock, handshake.host)
            if why:
                self.send_away(handshake, why)
                return
            identity = fingerprint(handshake.sock)
        self.forget(handshake)
        self._welcome(Caller(handshake.name, handshake.sock, hello, identity))

    def secure(self, sock: socket.socket) -> socket.socket:
        """The same with TLS, its handshake to be done; as it is without."""
        if self._tls is None:
            return sock
        return self._tls[1].wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    @property
    def speaks_tls(self) -> bool:
        return self._tls is not None

    def watch(self, handshake: _Handshake, *, to_write: bool) -> None:
        """Call it when its socket is ready."""
        self._supervisor.watch(handshake.sock, handshake.go_on, to_write=to_write)

    def unwatch(self, handshake: _Handshake) -> None:
        self._supervisor.unwatch(handshake.sock)

    def close(self) -> None:
        for handshake in list(self._handshakes):
            self.forget(handshake)
            handshake.sock.close()
        self._supervisor.unwatch(self._listener)


class _Handshake:
    """One connection at the door."""

    def __init__(self, door: Acceptor, sock: socket.socket, name: str, host: str) -> None:
        self._door = door
        self.name, self.host = name, host
        self.deadline = time.monotonic() + HELLO_SECONDS
        self.got = 0
        self.secured = not door.speaks_tls
        self._data = bytearray(HELLO_FRAME_BYTES)
        self._watched = False
        sock.setblocking(False)
        prepare(sock)
        self.sock = door.secure(sock)

    def go_on(self) -> None:
        """As far as it goes without waiting."""
        self.unwatch()
        hello: Hello | None = None
        try:
            if not self.secured:
                assert isinstance(self.sock, ssl.SSLSocket)
                self.sock.do_handshake()
                self.secured = True
            hello = self._read()
        except (ssl.SSLWantReadError, BlockingIOError):
            self._watch(to_write=False)
        except ssl.SSLWantWriteError:
            self._watch(to_write=True)
        except ssl.SSLError as error:
            self._door.send_away(self, tls_reason(error))
        except BadFrame as error:
            self._door.send_away(self, str(error))
        except OSError as error:
            self._door.send_away(self, error.strerror or str(error))
        if hello is not None:
            self._door.let_in(self, hello)

    def _read(self) -> Hello:
        while self.got < HELLO_FRAME_BYTES:
            count = self.sock.recv_into(memoryview(self._data)[self.got :])
            if count == 0:
                raise BadFrame(f"closed after {self.got} bytes of a hello")
            self.got += count
            if self.got >= HEADER.size:
                read_header(bytes(self._data[: HEADER.size]), 1, HELLO_LIMITS)
        header = read_header(bytes(self._data[: HEADER.size]), 1, HELLO_LIMITS)
        body = bytes(self._data[HEADER.size :])
        if header.body_bytes != len(body):
            raise BadFrame(f"hello: {header.body_bytes} bytes, not {len(body)}")
        check_body(header, body)
        return read_hello(body)

    def _watch(self, *, to_write: bool) -> None:
        self._door.watch(self, to_write=to_write)
        self._watched = True

    def unwatch(self) -> None:
        if self._watched:
            self._door.unwatch(self)
            self._watched = False


def _last_words(sock: socket.socket, frame: bytes) -> None:
    """Send what fits without waiting, and close."""
    try:
        if frame:
            sock.setblocking(False)
            sock.send(frame)
    except OSError:
        pass
    sock.close()
