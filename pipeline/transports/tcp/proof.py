"""Both sides show that they know the shared secret, and neither says it. The layout is in `protocol`."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket

from pipeline.errors import BadFrame
from pipeline.transports.tcp.protocol import NONCE_BYTES, PROOF_BYTES, Hello, pack_hello

SENDER, RECEIVER = b"ramferry 2 sender\0", b"ramferry 2 receiver\0"


def new_nonce() -> bytes:
    """Random, for one handshake."""
    return secrets.token_bytes(NONCE_BYTES)


def proof(secret: bytes, side: bytes, nonces: bytes, hello: Hello, receiver: bytes) -> bytes:
    """HMAC-SHA256 of all that the two have said, and of where the receiver is."""
    return hmac.digest(secret, side + nonces + pack_hello(hello) + receiver, hashlib.sha256)


def same(one: bytes, other: bytes) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(one, other)


def listening_end(sock: socket.socket, *, ours: bool) -> bytes:
    """The receiver's address as this side sees it: `ours` at the receiver, the peer's at the sender.

    Whoever listens elsewhere and passes everything on is found out by it. Raises OSError.
    """
    host, port = (sock.getsockname() if ours else sock.getpeername())[:2]
    address = ipaddress.ip_address(str(host).partition("%")[0])
    plain = getattr(address, "ipv4_mapped", None) or address
    return f"{plain} {port}".encode()


def split_response(body: bytes) -> tuple[bytes, bytes]:
    """The sender's nonce and its proof. Raises BadFrame."""
    if len(body) != NONCE_BYTES + PROOF_BYTES:
        raise BadFrame(f"response: {len(body)} bytes, not {NONCE_BYTES + PROOF_BYTES}")
    return body[:NONCE_BYTES], body[NONCE_BYTES:]
