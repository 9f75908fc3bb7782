"""The part of a command line that both ends of a connection share: addresses, TLS, secret, patience."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from pipeline.cli.values import Given, checked, option_of
from pipeline.errors import UsageError
from pipeline.net.address import Address, parse_address
from pipeline.net.secret import HOW_TO_MAKE, read_secret
from pipeline.net.tls import Tls
from pipeline.options import DEFAULT_RECONNECT_SECONDS, MAX_RECONNECT_SECONDS
from qat.scripts import shipped_script

ADDRESSES = "HOST:PORT, [IPV6]:PORT, [IPV6%%ZONE]:PORT or unix:PATH"
CONNECTION_OPTIONS = ("tls_dir", "tls_peer", "insecure", "reconnect")


@dataclass(frozen=True)
class ConnectionOptions:
    """How the two ends are connected."""

    tls: Tls | None
    secret: bytes | None
    insecure: bool
    reconnect_seconds: float


def add_connection_arguments(parser: argparse.ArgumentParser, *, with_secret: bool) -> None:
    """What both ends of a connection take; `with_secret` for an end whose other end is another command."""
    add = parser.add_argument_group("connections").add_argument
    add(
        "--tls-dir",
        metavar="DIR",
        help="TLS 1.3 with the certificates of this folder: ca-cert.pem, and client-cert.pem, client-key.pem "
        "of a sender, server-cert.pem, server-key.pem of a receiver (default: no TLS, which is for "
        "Unix sockets, and for loopback with --secret)",
    )
    add(
        "--tls-peer",
        metavar="NAME",
        action="append",
        help="a name or address that the certificate of the other side must hold; may be repeated "
        "(default: its address)",
    )
    add(
        "--insecure",
        action="store_true",
        default=None,
        help="neither TLS nor a secret although the network is untrusted, or the other users of this host "
        "are: whoever can reach the port can read and change guest RAM (default off)",
    )
    add(
        "--reconnect",
        metavar="SECONDS",
        help="seconds for which the first connection, or one that broke, is tried again "
        f"(default {DEFAULT_RECONNECT_SECONDS:g})",
    )
    if with_secret:
        add(
            "--secret",
            metavar="FILE",
            help="for plain TCP on one host: a file with mode 0600; each side proves to the other that it "
            f"knows what it holds (default: none); {HOW_TO_MAKE} makes one",
        )


def read_connection(given: Given, *roles: str) -> ConnectionOptions:
    """The certificates for `roles` are read once, to see that they can be used. Raises UsageError."""
    folder = given.text("tls_dir")
    secret_file = given.text("secret") if given.knows("secret") else None
    tls: Tls | None = None
    if folder is not None and secret_file is not None:
        raise UsageError("--secret: is for plain TCP; leave it out, or --tls-dir")
    if folder is None:
        given.refuse(("tls_peer",), "is for --tls-dir")
    else:
        given.refuse(("insecure",), "leave it out, or --tls-dir")
        tls = Tls(folder, given.texts("tls_peer"))
        for role in roles:
            tls.context(role)
    reconnect = given.number("reconnect", 0, MAX_RECONNECT_SECONDS, "seconds", DEFAULT_RECONNECT_SECONDS)
    secret = None if secret_file is None else read_secret("--secret", secret_file)
    return ConnectionOptions(tls, secret, given.flag("insecure"), reconnect)


def read_address(given: Given, name: str, connection: ConnectionOptions) -> Address:
    """An address. Raises UsageError for plain TCP that --insecure does not allow: to another host, and on
    this one without a secret."""
    text = given.text(name)
    assert text is not None, "required"
    option = option_of(name)
    address = checked(option, text, _address)
    if address.path and connection.secret is not None:
        raise UsageError(f"--secret: is for plain TCP; at {text} the kernel says who is there, leave it out")
    if address.path or connection.tls is not None or connection.insecure:
        return address
    try:
        local = address.is_local()
    except OSError as error:
        raise UsageError(f"{option} {text}: {error}") from error
    if not local:
        raise UsageError(
            f"{option} {text}: the network is untrusted: give --tls-dir "
            f"({shipped_script('make_certs.sh')} makes certificates), or say --insecure"
        )
    if connection.secret is None:
        raise UsageError(
            f"{option} {text}: any user of this host can listen and connect there: give both ends "
            f"--secret FILE ({HOW_TO_MAKE} makes one), or use unix:PATH or --tls-dir, or say --insecure"
        )
    return address


def _address(text: str) -> Address:
    """Raises ValueError."""
    address = parse_address(text)
    address.check_literal()
    return address
