"""Who comes in: accept, the TLS handshake, HELLO. Nothing else is done for a peer that is not known.

Until its HELLO is whole, and its proof where there is a secret, a peer costs a socket, OpenSSL's state, 128
bytes of ours, and HELLO_SECONDS at most; so many at a time, and only some of them from one address. When
there is no more room the oldest of the address that has the most makes way, and the running sender's own
address comes last: who crowds the door pushes himself away, and an honest peer is through it in two round
trips.
"""

from __future__ import annotations

import errno
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import BadFrame
from pipeline.net.address import name_of
from pipeline.net.tls import Tls, fingerprint, tls_reason
from pipeline.net.unix_peer import unix_peer_refusal
from pipeline.transports.tcp.link import Link, prepare
from pipeline.transports.tcp.messages import Refusal
from pipeline.transports.tcp.proof import (
    RECEIVER,
    SENDER,
    listening_end,
    new_nonce,
    proof,
    same,
    split_response,
)
from pipeline.transports.tcp.protocol import (
    HEADER,
    HELLO_LIMITS,
    HELLO_SECONDS,
    OLDEST_VERSION,
    RESPONSE_LIMITS,
    SECRET_VERSION,
    FrameHeader,
    FrameLimits,
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


ACCEPTED_AT_ONCE = 32
"""Connections taken in one go: the kernel's queue of them is emptied faster than a stranger fills it."""


@dataclass(frozen=True)
class Caller:
    """Somebody who said HELLO. `identity` is the hash of the certificate, or nothing without TLS; so many
    frames have been received and sent."""

    name: str
    host: str
    sock: socket.socket
    hello: Hello
    identity: bytes
    version: int
    received: int
    sent: int

    def link(self) -> Link:
        """For the process that will speak with it."""
        return Link(self.sock, received=self.received, sent=self.sent, version=self.version)

    def refuse(self, text: str, *, busy: bool = False) -> None:
        body = pack_json(Refusal(text, busy).body())
        _last_words(self.sock, pack_frame(FrameType.REFUSED, self.sent + 1, body, version=self.version))


class Watcher(Protocol):
    """Who waits for sockets, and calls when they are ready."""

    def watch(self, sock: socket.socket, on_ready: Callable[[], None], *, to_write: bool = False) -> None:
        """Call when the socket can be read, or written."""

    def unwatch(self, sock: socket.socket) -> None:
        """The opposite."""


class Acceptor:
    """All connections that have not said HELLO yet."""

    def __init__(
        self,
        watcher: Watcher,
        listener: socket.socket,
        tls: tuple[Tls, Callable[[], ssl.SSLContext]] | None,
        secret: bytes | None,
        welcome: Callable[[Caller], None],
        say: Callable[[str], None],
    ) -> None:
        """With `tls` goes what gives each connection its context. `welcome` takes the callers; `say` a line
        about those that are sent away, not one about each.
        """
        self.secret = secret
        self.running_host: str | None = None
        self._watcher = watcher
        self._listener = listener
        self._tls = tls
        self._welcome = welcome
        self._say = say
        self._handshakes: list[_Handshake] = []
        listener.setblocking(False)
        watcher.watch(listener, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, peer = self._listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._make_way(None)
                    time.sleep(0.05)
                return
            self._take(sock, peer)

    def _take(self, sock: socket.socket, peer: object) -> None:
        host = str(peer[0]) if isinstance(peer, tuple) else ""
        why = unix_peer_refusal(sock) if sock.family == socket.AF_UNIX else ""
        if why:
            self._say(f"refused {name_of(peer)}: {why}")
            _last_words(sock, _refused(why))
            return
        if sum(handshake.host == host for handshake in self._handshakes) >= MAX_PENDING_OF_ONE:
            self._make_way(host)
        elif len(self._handshakes) >= MAX_PENDING:
            self._make_way(None)
        try:
            handshake = _Handshake(self, sock, name_of(peer), host)
        except OSError:
            sock.close()  # reset before it said anything
            return
        self._handshakes.append(handshake)
        handshake.go_on()

    def _make_way(self, host: str | None) -> None:
        """Send away the oldest of a host, or of whichever has the most."""
        if host is None:
            counts = Counter(handshake.host for handshake in self._handshakes)
            others = {name: count for name, count in counts.items() if name != self.running_host} or counts
            host = max(others, key=lambda name: others[name], default=None)
        oldest = next((handshake for handshake in self._handshakes if handshake.host == host), None)
        if oldest is not None:
            self.send_away(oldest, f"too many connections that say no hello ({oldest.got} bytes came)")

    def tick(self) -> None:
        """Send away who takes too long."""
        now = time.monotonic()
        for handshake in [handshake for handshake in self._handshakes if now > handshake.deadline]:
            self.send_away(handshake, f"no hello within {HELLO_SECONDS:g} s ({handshake.got} bytes came)")

    def send_away(self, handshake: _Handshake, why: str) -> None:
        self.forget(handshake)
        self._say(f"refused {handshake.name}: {why}")
        refusal = _refused(why, handshake.sent, handshake.version)
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
        self._welcome(
            Caller(
                handshake.name,
                handshake.host,
                handshake.sock,
                hello,
                identity,
                handshake.version,
                handshake.received,
                handshake.sent,
            )
        )

    def secure(self, sock: socket.socket) -> socket.socket:
        """The same with TLS, its handshake to be done; as it is without."""
        if self._tls is None:
            return sock
        return self._tls[1]().wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    @property
    def speaks_tls(self) -> bool:
        return self._tls is not None

    def watch(self, handshake: _Handshake, *, to_write: bool) -> None:
        """Call it when its socket is ready."""
        self._watcher.watch(handshake.sock, handshake.go_on, to_write=to_write)

    def unwatch(self, handshake: _Handshake) -> None:
        self._watcher.unwatch(handshake.sock)

    def close(self) -> None:
        for handshake in list(self._handshakes):
            self.forget(handshake)
            handshake.sock.close()
        self._watcher.unwatch(self._listener)


class _Handshake:
    """One connection at the door."""

    def __init__(self, door: Acceptor, sock: socket.socket, name: str, host: str) -> None:
        self._door = door
        self.name, self.host = name, host
        self.deadline = time.monotonic() + HELLO_SECONDS
        self.got = self.received = self.sent = 0
        self.version = OLDEST_VERSION
        self.secured = not door.speaks_tls
        self._data = bytearray()
        self._hello: Hello | None = None
        self._challenge = b""
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
        """HELLO, and the proof that goes with it. Raises BadFrame, OSError, and what says: later."""
        secret = self._door.secret
        if self._hello is None:
            body = self._frame(HELLO_LIMITS)
            hello = read_hello(body)
            if secret is None:
                return hello
            if self.version < SECRET_VERSION:
                raise BadFrame(f"version {self.version} knows no shared secret, and this receiver has one")
            self._hello, self._challenge = hello, new_nonce()
            self._send(FrameType.CHALLENGE, self._challenge)
        assert secret is not None
        nonce, shown = split_response(self._frame(RESPONSE_LIMITS))
        said = self._challenge + nonce, self._hello, listening_end(self.sock, ours=True)
        if not same(shown, proof(secret, SENDER, *said)):
            raise BadFrame("the secret is another, or somebody stands between; see --secret")
        self._send(FrameType.PROOF, proof(secret, RECEIVER, *said))
        return self._hello

    def _send(self, type_: FrameType, body: bytes) -> None:
        """So little always fits into a fresh socket."""
        self.sent += 1
        frame = pack_frame(type_, self.sent, body, version=self.version)
        if self.sock.send(frame) != len(frame):
            raise BadFrame("takes no answer")

    def _frame(self, limits: FrameLimits) -> bytes:
        """The body of the next frame, of exactly the length that `limits` gives."""
        whole = HEADER.size + limits.body_bytes
        while len(self._data) < whole:
            more = self.sock.recv(whole - len(self._data))
            if not more:
                raise BadFrame(f"closed after {self.got} bytes of a hello")
            self.got += len(more)
            self._data += more
            if len(self._data) >= HEADER.size:
                self._note_version(self._header(limits).version)
        header, body = self._header(limits), bytes(self._data[HEADER.size :])
        if header.body_bytes != len(body):
            raise BadFrame(f"{header.type.name.lower()}: {header.body_bytes} bytes, not {len(body)}")
        check_body(header, body)
        self.received += 1
        self._data.clear()
        return body

    def _note_version(self, version: int) -> None:
        """HELLO says it, for the whole connection. Raises BadFrame."""
        if self._hello is None:
            self.version = version
        elif version != self.version:
            raise BadFrame(f"frame version: {version} on a connection of version {self.version}")

    def _header(self, limits: FrameLimits) -> FrameHeader:
        return read_header(bytes(self._data[: HEADER.size]), self.received + 1, limits)

    def _watch(self, *, to_write: bool) -> None:
        self._door.watch(self, to_write=to_write)
        self._watched = True

    def unwatch(self) -> None:
        if self._watched:
            self._door.unwatch(self)
            self._watched = False


def _refused(why: str, sent: int = 0, version: int = OLDEST_VERSION) -> bytes:
    return pack_frame(
        FrameType.REFUSED, sent + 1, pack_json(Refusal(why[:200], False).body()), version=version
    )


def _last_words(sock: socket.socket, frame: bytes) -> None:
    """Send what fits without waiting, and close."""
    try:
        if frame:
            sock.setblocking(False)
            sock.send(frame)
    except OSError:
        pass
    sock.close()
