"""The sender's way to a receiver: connect, TLS, HELLO, and what the receiver says to it."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from pipeline.errors import BadFrame, ConnectionLost, PeerBusy, PeerRefused, RunFailed
from pipeline.net.address import Address
from pipeline.net.secret import NONCE_BYTES, RECEIVER, SENDER, proof, same
from pipeline.net.tls import CLIENT, Tls, tls_reason
from pipeline.transports.tcp.link import Link, prepare
from pipeline.transports.tcp.messages import Refusal
from pipeline.transports.tcp.protocol import (
    CHALLENGE_BYTES,
    VERSION,
    FrameLimits,
    FrameType,
    Hello,
    pack_hello,
    read_json,
)

CONNECT_SECONDS = 2.0
RETRY_SECONDS = 0.2
PROOF_SECONDS = 5.0
ANSWERS = FrameLimits(frozenset({FrameType.WELCOME, FrameType.REFUSED}))
CHALLENGES = FrameLimits(frozenset({FrameType.CHALLENGE, FrameType.WELCOME, FrameType.REFUSED}))


@dataclass(frozen=True)
class Peer:
    """Whom to call, and how. `welcome_seconds` is how long the receiver may take to get ready."""

    address: Address
    tls: Tls | None
    reconnect_seconds: float
    welcome_seconds: float
    secret: bytes | None = None

    def call(self, hello: Hello) -> tuple[Link, dict[str, Any]]:
        """One attempt: a link, and the body of its WELCOME.

        Raises ConnectionLost for what may be better later, PeerRefused for what will not.
        """
        try:
            return self._call(hello, VERSION)
        except PeerRefused as error:
            # A receiver of the version before says so of the frame that it could not read.
            if "frame version" not in str(error) or self.secret is not None:
                raise
        return self._call(hello, VERSION - 1)

    def _call(self, hello: Hello, version: int) -> tuple[Link, dict[str, Any]]:
        try:
            sock = self.address.connect(CONNECT_SECONDS)
        except OSError as error:
            raise PeerBusy(f"{self.address}: {error.strerror or error}") from error
        try:
            prepare(sock)
            sock = self._secured(sock)
            link = Link(sock, version=version)
            link.send_frame(FrameType.HELLO, pack_hello(hello))
            self._prove(link, hello)
            if not link.wait(self.welcome_seconds):
                raise ConnectionLost(f"{self.address} does not answer for {self.welcome_seconds:.0f} s")
            type_, body = link.receive(ANSWERS)
        except ssl.SSLError as error:
            sock.close()
            raise PeerRefused(f"{self.address}: {tls_reason(error)}") from error
        except ConnectionLost as error:
            sock.close()
            if isinstance(error.__cause__, ssl.SSLError):
                # In TLS 1.3 a receiver refuses a certificate when the sender's handshake is over.
                raise PeerRefused(f"{self.address}: our {tls_reason(error.__cause__)}") from error
            hint = "" if self.tls is not None else " (one that was given --tls-dir wants TLS of its sender)"
            raise ConnectionLost(f"{self.address}: {error}{hint}") from error
        except BadFrame as error:
            sock.close()
            wants = " wants a --secret of its sender" if FrameType.CHALLENGE.name in str(error) else ""
            why = wants or f": is no receiver of ours, or speaks TLS: {error}"
            raise PeerRefused(f"{self.address}{why}") from error
        except BaseException:
            sock.close()
            raise
        if type_ is FrameType.REFUSED:
            link.close()
            self._refused(body)
        return link, body

    def _refused(self, body: dict[str, Any]) -> NoReturn:
        refusal = Refusal.of(body)
        kind = PeerBusy if refusal.busy else PeerRefused
        raise kind(f"{self.address} refuses: {refusal.text}")

    def _prove(self, link: Link, hello: Hello) -> None:
        """Where there is a secret the receiver proves first that it knows it, then this side does."""
        if self.secret is None:
            return
        if not link.wait(PROOF_SECONDS):
            raise ConnectionLost(f"{self.address} does not answer for {PROOF_SECONDS:.0f} s")
        header = link.header(CHALLENGES)
        body = bytes(link.body(header))
        if header.type is FrameType.REFUSED:
            self._refused(read_json(body))
        said = pack_hello(hello)
        nonce, found = body[:NONCE_BYTES], body[NONCE_BYTES:]
        if header.type is not FrameType.CHALLENGE or len(body) != CHALLENGE_BYTES:
            raise PeerRefused(
                f"{self.address}: the receiver does not ask for the --secret; give it to both sides"
            )
        if not same(found, proof(self.secret, RECEIVER, said, nonce)):
            raise PeerRefused(f"{self.address}: whoever listens there does not know the --secret")
        link.send_frame(FrameType.PROOF, proof(self.secret, SENDER, said, nonce))

    def _secured(self, sock: socket.socket) -> socket.socket:
        if self.tls is None:
            return sock
        context = self.tls.context(CLIENT)
        sock.settimeout(CONNECT_SECONDS * 2)
        try:
            wrapped = context.wrap_socket(sock, server_hostname=self.address.host or None)
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
