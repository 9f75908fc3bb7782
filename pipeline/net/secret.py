"""A secret that both ends of a plain connection share, in a file that nobody else can read."""

from __future__ import annotations

import os
import stat

from guestmem.users import is_trusted
from pipeline.errors import UsageError

MIN_BYTES, MAX_BYTES = 16, 1024
HOW_TO_MAKE = "`umask 077; openssl rand -hex 32 >FILE`"
TOO_OPEN = stat.S_IRWXG | stat.S_IRWXO


def read_secret(option: str, path: str) -> bytes:
    """What the file holds, without white space around it. Raises UsageError."""
    try:
        # A pipe without a writer would hold open(2) up.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}; {HOW_TO_MAKE} makes one") from error
    try:
        why = _refusal(os.fstat(fd), path)
        secret = b"" if why else os.read(fd, MAX_BYTES + 1).strip()
    finally:
        os.close(fd)
    if why:
        raise UsageError(f"{option} {path}: {why}")
    if not MIN_BYTES <= len(secret) <= MAX_BYTES:
        raise UsageError(
            f"{option} {path}: holds {len(secret)} bytes, must be {MIN_BYTES} to {MAX_BYTES}; "
            f"{HOW_TO_MAKE} makes one"
        )
    return secret


def _refusal(status: os.stat_result, path: str) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if not is_trusted(status.st_uid):
        return f"belongs to user {status.st_uid}; the secret must be in a file of your own"
    if status.st_mode & TOO_OPEN:
        return f"is open to others; chmod 600 {path}"
    return ""
