"""The command line of `pipeline.recv`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from pipeline.cli.arguments import ADDRESSES, MAX_WORKERS, add_connection_arguments, add_receive_arguments
from pipeline.cli.connection import parse_endpoint, parse_reconnect
from pipeline.cli.guest import OneLineParser, attach_negative, parse_bytes, parse_within
from pipeline.codecs.method import CodecSettings
from pipeline.destination.output import Output
from pipeline.errors import UsageError
from pipeline.net.address import Address
from pipeline.net.tls import SERVER
from pipeline.options import one_of, writable_json
from pipeline.transports.tcp.server.receive_run import ReceiveOptions

MAX_RUNS = 10**9


@dataclass(frozen=True)
class RecvOptions:
    """A validated command line. `runs` 0 is no limit."""

    listen: Address
    receive: ReceiveOptions
    runs: int
    once: bool
    insecure: bool
    json: str | None
    quiet: bool


def build_recv_parser() -> argparse.ArgumentParser:
    """All options, with what each is, its unit and its default."""
    parser = OneLineParser(
        prog="python -m pipeline.recv",
        description="Receive a guest's RAM that python -m pipeline.send sends. A sender that fails, or is "
        "none, is told of in one line, and the next may come.",
        epilog="Exit codes: 0 a run was received (and kept, if asked), 1 --once and it failed, 2 wrong usage "
        "or this host cannot do it, 130 cancelled.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--listen", metavar="ADDRESS", required=True, help=f"where to wait for the sender: {ADDRESSES}")
    add("--output", metavar="FILE", help="keep what was received as a raw RAM image (default: drop it)")
    add(
        "--output-shm",
        metavar="NAME",
        help="keep it as POSIX shared memory of this name (default: drop it)",
    )
    add("--max-size", metavar="SIZE", help="RAM taken at most, bytes (default: what is free)")
    add(
        "--max-channels",
        metavar="N",
        default=str(MAX_WORKERS),
        help=f"channels taken at most, 1 to {MAX_WORKERS} (default {MAX_WORKERS})",
    )
    add("--runs", metavar="N", default="1", help="end after N complete runs, 0 is never (default 1)")
    add("--once", action="store_true", help="end after the first run, also when it failed (default off)")
    add_receive_arguments(parser)
    add_connection_arguments(parser)
    add("--json", metavar="FILE", help="write the last run as JSON; - is standard output (default none)")
    add("--quiet", action="store_true", help="no lines about what goes on (default off)")
    return parser


def parse_recv(arguments: list[str]) -> RecvOptions:
    """Raises UsageError."""
    given = build_recv_parser().parse_args(attach_negative(arguments))
    listen, tls = parse_endpoint("--listen", given.listen, given, SERVER)
    keep = Output(given.output, given.output_shm)
    keep.check()
    runs = parse_within("--runs", given.runs, 0, MAX_RUNS)
    if runs != 1 and (given.output is not None or given.output_shm is not None):
        raise UsageError(f"--runs {runs}: what is kept has one name, so leave it out or --output")
    size = None if given.max_size is None else parse_bytes("--max-size", given.max_size)
    if size is not None and size <= 0:
        raise UsageError(f"--max-size {given.max_size}: must be above 0")
    decode = one_of("--qat-decode", given.qat_decode, ("cpu", "hardware"))
    receive = ReceiveOptions(
        tls=tls,
        reconnect_seconds=parse_reconnect(given),
        prealloc=given.prealloc,
        ram_bytes_max=size,
        channels_max=parse_within("--max-channels", given.max_channels, 1, MAX_WORKERS),
        keep=keep,
        settings=CodecSettings(level=1, decode_on_qat=decode == "hardware"),
    )
    return RecvOptions(
        listen, receive, runs, given.once, given.insecure, writable_json(given.json), given.quiet
    )
