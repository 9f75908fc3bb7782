"""Who comes in: accept, the TLS handshake, HELLO. Nothing else is done for a peer that is not known.

Until its HELLO, and a proof where there is a secret, is whole a peer costs a socket, OpenSSL's state, some
hundred bytes of ours, and HELLO_SECONDS at most; so many at a time, and only some of them from one address.
When there are too many the oldest makes room, so that a crowd of silent ones keeps nobody out.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import BadFrame
from pipeline.net.address import name_of, peer_uid
from pipeline.net.secret import NONCE_BYTES, PROOF_BYTES, RECEIVER, SENDER, proof, same
from pipeline.net.tls import Tls, fingerprint, tls_reason
from pipeline.processes.supervisor import Supervisor
from pipeline.transports.tcp.link import Link, prepare
from pipeline.transports.tcp.messages import Refusal
from pipeline.transports.tcp.protocol import (
    HEADER,
    HELLO,
    HELLO_LIMITS,
    HELLO_SECONDS,
    PROOF_LIMITS,
    VERSION,
    FrameHeader,
    FrameLimits,
    FrameType,
    Hello,
    check_body,
    pack_frame,
    pack_hello,
    pack_json,
    read_header,
    read_hello,
)

CHALLENGE_VERSION = 2
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
    version: int
    proven: bool

    def link(self) -> Link:
        """For the process that will speak with it, after HELLO and, if there is a secret, its proof."""
        more = int(self.proven)
        return Link(self.sock, received=1 + more, sent=more, version=self.version)

    def refuse(self, text: str, *, busy: bool = False) -> None:
        body = pack_json(Refusal(text, busy).body())
        frame = pack_frame(FrameType.REFUSED, 1 + int(self.proven), body, version=self.version)
        _last_words(self.sock, frame)


class Acceptor:
    """All connections that have not said HELLO yet."""

    def __init__(
        self,
        supervisor: Supervisor,
        listener: socket.socket,
        tls: tuple[Tls, ssl.SSLContext] | None,
        secret: bytes | None,
        welcome: Callable[[Caller], None],
        say: Callable[[str], None],
    ) -> None:
        """`secret` must be known to callers; `welcome` takes them; `say` a line about who is sent away."""
        self.secret = secret
        self._supervisor = supervisor
        self._listener = listener
        self._tls = tls
        self._welcome = welcome
        self._say = say
        self._handshakes: list[_Handshake] = []
        self._sent_away = OneLineASecond(say)
        listener.setblocking(False)
        supervisor.watch(listener, self._accept)

    def _accept(self) -> None:
        try:
            sock, peer = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(0.05)
            return
        if sock.family == socket.AF_UNIX and peer_uid(sock) not in (os.geteuid(), 0):
            sock.close()
            self._sent_away.say("a process of another user: this socket is not for it")
            return
        host = str(peer[0]) if isinstance(peer, tuple) else ""
        self._make_room(host)
        try:
            handshake = _Handshake(self, sock, name_of(peer), host)
        except OSError:
            sock.close()  # reset before it said anything
            return
        self._handshakes.append(handshake)
        handshake.go_on()

    def _make_room(self, host: str) -> None:
        """The oldest that has said nothing makes room: first of the same address, where that has many."""
        of_host = [handshake for handshake in self._handshakes if handshake.host == host]
        if len(of_host) >= MAX_PENDING_OF_ONE:
            self.send_away(of_host[0], "too many handshakes from one address")
        elif len(self._handshakes) >= MAX_PENDING:
            self.send_away(self._handshakes[0], "too many handshakes")

    def tick(self) -> None:
        """Send away who takes too long."""
        self._sent_away.tick()
        now = time.monotonic()
        for handshake in [handshake for handshake in self._handshakes if now > handshake.deadline]:
            self.send_away(handshake, f"no hello within {HELLO_SECONDS:g} s ({handshake.got} bytes came)")

    def send_away(self, handshake: _Handshake, why: str) -> None:
        self.forget(handshake)
        self._sent_away.say(f"refused {handshake.name}: {why}")
        body = pack_json(Refusal(why[:200], False).body())
        refusal = pack_frame(FrameType.REFUSED, 1 + handshake.sent, body, version=handshake.version)
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
        proven = self.secret is not None
        self._welcome(Caller(handshake.name, handshake.sock, hello, identity, handshake.version, proven))

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
        self.got = self.sent = 0
        self.version = VERSION
        self.secured = not door.speaks_tls
        self._data = bytearray(HELLO_FRAME_BYTES)
        self._hello: Hello | None = None
        self._nonce = b""
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
            hello = self._proven_hello()
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

    def _proven_hello(self) -> Hello:
        """HELLO, and the proof behind it where this side has a secret."""
        if self._hello is None:
            header, body = self._read_frame(1, HELLO_LIMITS, HELLO.size)
            self._hello, self.version = read_hello(body), header.version
            if self._door.secret is None:
                return self._hello
            self._challenge(self._door.secret, body)
        secret = self._door.secret
        assert secret is not None
        _, found = self._read_frame(2, PROOF_LIMITS, PROOF_BYTES)
        if not same(found, proof(secret, SENDER, pack_hello(self._hello), self._nonce)):
            raise BadFrame("proof: the sender does not know the secret of this receiver")
        return self._hello

    def _challenge(self, secret: bytes, hello: bytes) -> None:
        if self.version < CHALLENGE_VERSION:
            raise BadFrame(f"frame version: {self.version} knows no secret")
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        body = self._nonce + proof(secret, RECEIVER, hello, self._nonce)
        self.sent = 1
        self.sock.send(pack_frame(FrameType.CHALLENGE, 1, body, version=self.version))
        self._data, self.got = bytearray(HEADER.size + PROOF_BYTES), 0

    def _read_frame(self, sequence: int, limits: FrameLimits, size: int) -> tuple[FrameHeader, bytes]:
        """The next frame, whose body has `size` bytes. Raises BlockingIOError until it is there."""
        while self.got < len(self._data):
            count = self.sock.recv_into(memoryview(self._data)[self.got :])
            if count == 0:
                raise BadFrame(f"closed after {self.got} bytes of a hello")
            self.got += count
            if self.got >= HEADER.size:
                read_header(bytes(self._data[: HEADER.size]), sequence, limits)
        header = read_header(bytes(self._data[: HEADER.size]), sequence, limits)
        body = bytes(self._data[HEADER.size :])
        if header.body_bytes != size:
            raise BadFrame(f"hello: {header.body_bytes} bytes, not {size}")
        check_body(header, body)
        return header, body

    def _watch(self, *, to_write: bool) -> None:
        self._door.watch(self, to_write=to_write)
        self._watched = True

    def unwatch(self) -> None:
        if self._watched:
            self._door.unwatch(self)
            self._watched = False


class OneLineASecond:
    """Lines about strangers: one a second, with how many were left out."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._next = 0.0
        self._left_out, self._last = 0, ""

    def say(self, text: str) -> None:
        """Say it now, or count it."""
        now = time.monotonic()
        if now < self._next:
            self._left_out, self._last = self._left_out + 1, text
            return
        self._next = now + 1.0
        self._say(text)

    def tick(self) -> None:
        """Say how many were left out, when a second has passed."""
        if self._left_out and time.monotonic() >= self._next:
            count, self._left_out = self._left_out, 0
            self.say(self._last if count == 1 else f"{count} more were refused; the last: {self._last}")


def _last_words(sock: socket.socket, frame: bytes) -> None:
    """Send what fits without waiting, and close."""
    try:
        if frame:
            sock.setblocking(False)
            sock.send(frame)
    except OSError:
        pass
    sock.close()
