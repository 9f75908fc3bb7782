"""A secret that both ends of a plain connection know, and each proves to the other without saying it.

Loopback TCP is open to every user of a host: anybody may listen where a sender calls, or call where a
receiver listens. HMAC-SHA256 (RFC 2104) over both sides' nonces says who is who; it does not hide or protect
what follows, which stays on this host.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from pipeline.errors import UsageError

NONCE_BYTES = PROOF_BYTES = 32
MIN_SECRET_BYTES = 16
MAX_SECRET_BYTES = 4096
TOO_OPEN = stat.S_IRWXG | stat.S_IRWXO
RECEIVER, SENDER = b"receiver", b"sender"
"""Whose proof it is, so that neither side can be answered with its own."""


def read_secret(option: str, text: str) -> bytes:
    """The secret in a file that only its owner can read. Raises UsageError."""
    path = Path(text)
    try:
        there = path.stat()
        data = path.read_bytes()[: MAX_SECRET_BYTES + 1].strip()
    except OSError as error:
        raise UsageError(f"{option} {text}: cannot be read ({error.strerror})") from error
    if there.st_uid not in (os.geteuid(), 0):
        raise UsageError(f"{option} {text}: belongs to another user")
    if there.st_mode & TOO_OPEN:
        raise UsageError(f"{option} {text}: is open to others; chmod 600 {text}")
    if not MIN_SECRET_BYTES <= len(data) <= MAX_SECRET_BYTES:
        raise UsageError(
            f"{option} {text}: holds {len(data)} bytes, must be {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES}; "
            f"openssl rand -hex 32 > {text} makes one"
        )
    return data


def new_secret() -> bytes:
    """For a run whose both ends are made here."""
    return secrets.token_bytes(32)


def proof(secret: bytes, who: bytes, hello: bytes, nonce: bytes) -> bytes:
    """That `who` knows the secret: over the sender's HELLO, which is never twice the same, and the receiver's
    nonce."""
    return hmac.new(secret, who + b"\0" + hello + nonce, hashlib.sha256).digest()


def same(one: bytes, other: bytes) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(one, other)
