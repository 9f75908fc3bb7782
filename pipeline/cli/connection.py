"""The part of a command line that both ends of a connection share: addresses, TLS, patience."""

from __future__ import annotations

import argparse

from pipeline.cli.guest import checked, parse_number
from pipeline.errors import UsageError
from pipeline.net.address import Address, parse_address
from pipeline.net.tls import Tls

MAX_RECONNECT_SECONDS = 86400.0


def parse_endpoint(
    option: str, text: str, given: argparse.Namespace, role: str
) -> tuple[Address, Tls | None]:
    """An address, and the TLS that it needs. Raises UsageError for plain TCP to another host."""
    address = checked(option, text, parse_address)
    tls = parse_tls(given, role)
    if tls is not None or given.insecure:
        return address, tls
    try:
        local = address.is_local()
    except OSError as error:
        raise UsageError(f"{option} {text}: {error}") from error
    if not local:
        raise UsageError(
            f"{option} {text}: the network is untrusted: give --tls-dir (tools/make_certs.sh makes "
            "certificates), or say --insecure"
        )
    return address, None


def parse_tls(given: argparse.Namespace, *roles: str) -> Tls | None:
    """The certificates for `roles`, read once to see that they do. Raises UsageError."""
    if given.tls_dir is None:
        if given.tls_peer is not None:
            raise UsageError("--tls-peer: is for --tls-dir")
        return None
    if given.insecure:
        raise UsageError("--insecure: leave it out, or --tls-dir")
    tls = Tls(given.tls_dir, tuple(given.tls_peer or ()))
    for role in roles:
        tls.context(role)
    return tls


def parse_reconnect(given: argparse.Namespace) -> float:
    """Seconds. Raises UsageError."""
    value = parse_number("--reconnect", given.reconnect)
    if not 0 <= value <= MAX_RECONNECT_SECONDS:
        raise UsageError(f"--reconnect {given.reconnect}: must be 0 to {MAX_RECONNECT_SECONDS:.0f} seconds")
    return value
