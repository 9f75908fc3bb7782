"""The sender's way to a receiver: connect, TLS, HELLO, and what the receiver says to it."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import BadFrame, ConnectionLost, PeerBusy, PeerRefused, RunFailed
from pipeline.net.address import Address
from pipeline.net.tls import Tls, tls_reason
from pipeline.net.unix_peer import unix_peer_refusal
from pipeline.transports.tcp.link import Link, prepare
from pipeline.transports.tcp.messages import Refusal
from pipeline.transports.tcp.proof import RECEIVER, SENDER, listening_end, new_nonce, proof, same
from pipeline.transports.tcp.protocol import (
    NONCE_BYTES,
    OLDEST_VERSION,
    SECRET_VERSION,
    VERSION,
    VERSION_REFUSED,
    FrameLimits,
    FrameType,
    Hello,
    pack_hello,
)

CONNECT_SECONDS = 2.0
RETRY_SECONDS = 0.2
ANSWERS = FrameLimits(frozenset({FrameType.WELCOME, FrameType.REFUSED}))
FIRST_ANSWERS = FrameLimits(ANSWERS.types | {FrameType.CHALLENGE})
PROOFS = FrameLimits(frozenset({FrameType.PROOF, FrameType.REFUSED}))


class _OlderReceiver(PeerRefused):
    """It does not know the version of this sender's HELLO."""


@dataclass(frozen=True)
class Peer:
    """Whom to call, and how. `welcome_seconds` is how long the receiver may take to get ready; `context` goes
    with `tls`, made once: a run outlives the files of its certificates. `version` is this protocol's, or one
    before, where the receiver was found to speak that."""

    address: Address
    tls: Tls | None
    reconnect_seconds: float
    welcome_seconds: float
    secret: bytes | None = field(default=None, repr=False)
    context: ssl.SSLContext | None = field(default=None, repr=False)
    version: int = VERSION

    def call(self, hello: Hello) -> tuple[Link, dict[str, Any]]:
        """One attempt: a link, and the body of its WELCOME; more, to a receiver of a version before.

        Raises ConnectionLost for what may be better later, PeerRefused for what will not.
        """
        try:
            return self._call(hello)
        except _OlderReceiver as error:
            if self.secret is not None and self.version <= SECRET_VERSION:
                raise PeerRefused(
                    f"{self.address}: the receiver is ramferry 0.1, which knows no --secret: use --tls-dir "
                    "or a Unix socket, or install a newer one there"
                ) from error
            if self.version == OLDEST_VERSION:
                raise PeerRefused(str(error)) from error
        return dataclasses.replace(self, version=self.version - 1).call(hello)

    def _call(self, hello: Hello) -> tuple[Link, dict[str, Any]]:
        try:
            sock = self.address.connect(CONNECT_SECONDS)
        except OSError as error:
            raise PeerBusy(f"{self.address}: {error.strerror or error}") from error
        try:
            prepare(sock)
            self._check_user(sock)
            sock = self._secured(sock)
            link = Link(sock, version=self.version)
            link.send_frame(FrameType.HELLO, pack_hello(hello))
            type_, body = self._answer(link, hello)
        except ssl.SSLError as error:
            sock.close()
            raise PeerRefused(f"{self.address}: {tls_reason(error)}") from error
        except ConnectionLost as error:
            sock.close()
            if isinstance(error.__cause__, ssl.SSLError) and not isinstance(error.__cause__, ssl.SSLEOFError):
                # In TLS 1.3 a receiver refuses a certificate when the sender's handshake is over.
                raise PeerRefused(f"{self.address}: our {tls_reason(error.__cause__)}") from error
            hint = (
                ""
                if self.tls is not None or self.address.path
                else " (one that was given --tls-dir wants TLS of its sender)"
            )
            raise ConnectionLost(f"{self.address}: {error}{hint}") from error
        except BadFrame as error:
            sock.close()
            raise PeerRefused(f"{self.address}: is no receiver of ours, or speaks TLS: {error}") from error
        except BaseException:
            sock.close()
            raise
        if type_ is FrameType.REFUSED:
            link.close()
            refusal = Refusal.of(body)
            if refusal.busy:
                raise PeerBusy(f"{self.address} refuses: {refusal.text}")
            older = refusal.text.startswith(VERSION_REFUSED)
            raise (_OlderReceiver if older else PeerRefused)(f"{self.address} refuses: {refusal.text}")
        return link, body

    def _check_user(self, sock: socket.socket) -> None:
        """Raises PeerRefused for a Unix socket on which another user listens."""
        why = unix_peer_refusal(sock) if sock.family == socket.AF_UNIX else ""
        if why:
            raise PeerRefused(f"{self.address}: {why}")

    def _answer(self, link: Link, hello: Hello) -> tuple[FrameType, dict[str, Any]]:
        """WELCOME or REFUSED, after the proofs where there is a secret. Raises what `call` does, BadFrame."""
        type_, body = self._frame(link, FIRST_ANSWERS)
        if type_ is FrameType.CHALLENGE:
            type_, body = self._prove(link, hello, body)
            if type_ is FrameType.PROOF:
                type_, body = self._frame(link, ANSWERS)
        elif self.secret is not None and type_ is FrameType.WELCOME:
            raise PeerRefused(
                f"{self.address}: the receiver asks for no secret, so it may be anybody's; "
                "give it --secret too"
            )
        return type_, link.decode(type_, body)

    def _prove(self, link: Link, hello: Hello, challenge: bytes) -> tuple[FrameType, bytes]:
        if self.secret is None:
            raise PeerRefused(f"{self.address}: the receiver asks for its shared secret; give --secret FILE")
        if len(challenge) != NONCE_BYTES:
            raise BadFrame(f"challenge: {len(challenge)} bytes, not {NONCE_BYTES}")
        nonce = new_nonce()
        try:
            receiver = listening_end(link.socket, ours=False)
        except OSError as error:
            raise ConnectionLost(error.strerror or str(error)) from error
        both = challenge + nonce
        link.send_frame(FrameType.RESPONSE, nonce + proof(self.secret, SENDER, both, hello, receiver))
        type_, body = self._frame(link, PROOFS)
        if type_ is FrameType.PROOF and not same(body, proof(self.secret, RECEIVER, both, hello, receiver)):
            raise PeerRefused(f"{self.address}: the receiver does not know the secret of --secret")
        return type_, body

    def _frame(self, link: Link, limits: FrameLimits) -> tuple[FrameType, bytes]:
        if not link.wait(self.welcome_seconds):
            raise ConnectionLost(f"{self.address} does not answer for {self.welcome_seconds:.0f} s")
        header = link.header(limits)
        return header.type, bytes(link.body(header))

    def _secured(self, sock: socket.socket) -> socket.socket:
        if self.tls is None or self.context is None:
            return sock
        sock.settimeout(CONNECT_SECONDS * 2)
        try:
            wrapped = self.context.wrap_socket(sock, server_hostname=self.address.host or None)
        except TimeoutError as error:
            raise ConnectionLost("the TLS handshake is not answered") from error
        except ssl.SSLEOFError as error:
            raise ConnectionLost("closed in the TLS handshake") from error
        except ssl.SSLError:
            raise
        except OSError as error:
            raise ConnectionLost(error.strerror or str(error)) from error
        why = self.tls.name_refusal(wrapped, self.address.host)
        if why:
            wrapped.close()
            raise PeerRefused(f"{self.address}: {why}")
        return wrapped

    def keep_calling(
        self, hello: Hello, seconds: float, between: Callable[[], float | None]
    ) -> tuple[Link, dict[str, Any], int]:
        """Attempts for `seconds`; each is a generation of its own, and the one that succeeded is returned.

        `between` is called after a failed one; it may return a new time (monotonic) to give up at.
        Raises RunFailed when none succeeds, PeerRefused when none will.
        """
        until = time.monotonic() + seconds
        while True:
            try:
                return (*self.call(hello), hello.generation)
            except ConnectionLost as error:
                until = max(until, between() or 0.0)
                if time.monotonic() >= until:
                    raise RunFailed(f"no connection within {seconds:g} s: {error}") from error
            time.sleep(RETRY_SECONDS)
            hello = dataclasses.replace(hello, generation=hello.generation + 1)
