"""The part of a command line that both ends of a connection share: addresses, TLS, patience."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace

from pipeline.cli.values import Given, checked, option_of
from pipeline.errors import UsageError
from pipeline.net.address import Address, parse_address
from pipeline.net.secret import read_secret
from pipeline.net.tls import Tls
from pipeline.options import DEFAULT_RECONNECT_SECONDS, MAX_RECONNECT_SECONDS
from qat.scripts import shipped_script

ADDRESSES = "HOST:PORT, [IPV6]:PORT or unix:PATH"
CONNECTION_OPTIONS = ("tls_dir", "tls_peer", "insecure", "reconnect")
"""Those that `run --transport tcp` takes; `send` and `recv` also take --secret."""


@dataclass(frozen=True)
class ConnectionOptions:
    """How the two ends are connected."""

    tls: Tls | None
    insecure: bool
    reconnect_seconds: float
    secret: bytes | None = field(default=None, repr=False)


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """What both ends of a connection take."""
    add = parser.add_argument_group("connections").add_argument
    add(
        "--tls-dir",
        metavar="DIR",
        help="TLS 1.3 with the certificates of this folder: ca-cert.pem, and client-cert.pem, client-key.pem "
        "of a sender, server-cert.pem, server-key.pem of a receiver (default: no TLS, which is for "
        "loopback and Unix sockets)",
    )
    add(
        "--tls-peer",
        metavar="NAME",
        action="append",
        help="a name or address that the other side's certificate must have; may be given several times "
        "(default: the address that it has)",
    )
    add(
        "--insecure",
        action="store_true",
        default=None,
        help="no TLS although the network is untrusted: whoever can reach the port can read and change "
        "guest RAM (default off)",
    )
    add(
        "--reconnect",
        metavar="SECONDS",
        help="how long a connection that broke, or a first one, is tried again, seconds "
        f"(default {DEFAULT_RECONNECT_SECONDS:g})",
    )


def add_secret_argument(parser: argparse.ArgumentParser) -> None:
    """What a sender and a receiver of one host may share."""
    parser.add_argument(
        "--secret",
        metavar="FILE",
        help="a file (mode 0600, 16 bytes or more) that both sides have, and prove to each other that they "
        "know; for plain TCP on one host, where any user may listen (default none)",
    )


def read_secret_option(given: Given, connection: ConnectionOptions) -> ConnectionOptions:
    """The same, with the secret. Raises UsageError."""
    text = given.text("secret")
    if text is None:
        return connection
    if connection.tls is not None:
        raise UsageError("--secret: is for plain TCP; leave it out, or --tls-dir")
    return replace(connection, secret=read_secret("--secret", text))


def read_connection(given: Given, *roles: str) -> ConnectionOptions:
    """The certificates for `roles` are read once, to see that they can be used. Raises UsageError."""
    folder = given.text("tls_dir")
    tls: Tls | None = None
    if folder is None:
        given.refuse(("tls_peer",), "is for --tls-dir")
    else:
        given.refuse(("insecure",), "leave it out, or --tls-dir")
        tls = Tls(folder, given.texts("tls_peer"))
        for role in roles:
            tls.context(role)
    reconnect = given.number("reconnect", 0, MAX_RECONNECT_SECONDS, "seconds", DEFAULT_RECONNECT_SECONDS)
    return ConnectionOptions(tls, given.flag("insecure"), reconnect)


def read_address(given: Given, name: str, connection: ConnectionOptions) -> Address:
    """An address. Raises UsageError for plain TCP that is not allowed: to another host it needs TLS, on this
    one TLS or a secret, unless --insecure says otherwise."""
    text = given.text(name)
    assert text is not None, "required"
    option = option_of(name)
    address = checked(option, text, parse_address)
    if connection.tls is not None or connection.insecure:
        return address
    try:
        local = address.is_local()
    except OSError as error:
        raise UsageError(f"{option} {text}: {error}") from error
    if address.path:
        given.refuse(("secret",), "is for TCP; at a Unix socket the kernel says who is there")
    elif local and connection.secret is None:
        raise UsageError(
            f"{option} {text}: any user of this host may listen or call there: give both sides --secret FILE "
            "or --tls-dir, use unix:PATH, or say --insecure"
        )
    if not local:
        raise UsageError(
            f"{option} {text}: the network is untrusted: give --tls-dir "
            f"({shipped_script('make_certs.sh')} makes certificates), or say --insecure"
        )
    return address
