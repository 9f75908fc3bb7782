"""The command line of `python -m pipeline.run`; values are checked by `pipeline.options`."""

from __future__ import annotations

import argparse

from pipeline.cli.guest import OneLineParser, add_guest_arguments
from pipeline.codecs import METHODS
from pipeline.packets.queue import MAX_SLOTS
from qat.watchdog import DEFAULT_TIMEOUT_SECONDS

AUTO = "auto"
MAX_WORKERS = 64


def _build_parser(program: str) -> argparse.ArgumentParser:
    """The options of whoever sends, with what each is, its unit and its default."""
    parser = OneLineParser(
        prog=f"python -m {program}",
        description="Migrate a live guest's RAM from a source image to a destination mapping, "
        "through channels that compress on Intel QAT or on the CPU, and measure it.",
        epilog="Sizes and rates take K, M, G (1024) and are bytes and bytes per second. Exit codes: "
        "0 completed (and verified), 1 failed, 2 wrong usage or this host cannot do it, "
        "3 did not converge, 130 cancelled.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--attach",
        metavar="NAME",
        help="migrate the guest that tools.dirtyrate --create NAME keeps running, and leave it "
        "running (default: make a guest of one's own, described below)",
    )
    add_guest_arguments(parser)
    _add_channels(parser)
    _add_qat(parser)
    _add_policy(parser)
    _add_result(parser)
    return parser


def build_run_parser() -> argparse.ArgumentParser:
    """`pipeline.run`: both ends on this host."""
    parser = _build_parser("pipeline.run")
    _add_receivers(parser)
    add = parser.add_argument_group("transport").add_argument
    add(
        "--transport",
        metavar="NAME",
        default="queue",
        help="queue (through shared memory) or tcp (a connection a channel, over loopback) (default queue)",
    )
    add_connection_arguments(parser)
    return parser


def build_send_parser() -> argparse.ArgumentParser:
    """`pipeline.send`: this end of a migration to another host."""
    parser = _build_parser("pipeline.send")
    add = parser.add_argument_group("transport").add_argument
    add("--to", metavar="ADDRESS", required=True, help=f"where pipeline.recv listens: {ADDRESSES}")
    add_connection_arguments(parser)
    return parser


ADDRESSES = "HOST:PORT, [IPV6]:PORT or unix:PATH"


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """What both ends of a connection take; checked by `pipeline.cli.connection`."""
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
        help="no TLS although the network is untrusted: whoever can reach the port can read and change "
        "guest RAM (default off)",
    )
    add(
        "--reconnect",
        metavar="SECONDS",
        default="30",
        help="seconds that a broken connection is called again, and a first one (default 30)",
    )


def _add_channels(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("channels").add_argument
    add(
        "--method",
        default=AUTO,
        help=f"{AUTO}, {', '.join(METHODS)} (default {AUTO}: chosen packet by packet from all of them, a QAT "
        "device's first, by what the wire, the CPUs and the memory turn out to be)",
    )
    add("--level", metavar="N", help=f"compression level: {_levels()} (default 1)")
    add("--channels", metavar="N", default="2", help=f"send processes, 1 to {MAX_WORKERS} (default 2)")
    add(
        "--packet-size",
        metavar="SIZE",
        default="512K",
        help="guest bytes in a packet, a multiple of 4K, 4K to 4M (default 512K)",
    )
    add(
        "--queue-depth",
        metavar="N",
        help=f"packets in the queue at most, 1 to {MAX_SLOTS} "
        "(default: four times the channels plus twice the receivers)",
    )
    add(
        "--dirty-log",
        metavar="LOG",
        default="auto",
        help="who notes what the guest writes: shared (the guest marks), kernel (Linux 6.7 or later "
        "does), auto (default auto: kernel where there is one)",
    )


def _add_receivers(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("receivers").add_argument
    add(
        "--receivers",
        metavar="N",
        help=f"receive processes, 1 to {MAX_WORKERS} (default: as many as channels)",
    )
    add_receive_arguments(parser)


def add_receive_arguments(parser: argparse.ArgumentParser) -> None:
    """What whoever receives decides by itself."""
    add = parser.add_argument_group("the destination").add_argument
    add(
        "--prealloc",
        action="store_true",
        help="give the destination its pages before the clock starts (default: on first touch)",
    )
    add(
        "--qat-decode",
        metavar="WHERE",
        default="cpu",
        help="where receivers decompress qatzip: cpu or hardware (default cpu)",
    )


def _levels() -> str:
    return ", ".join(
        f"{method.name} {method.levels[0]} to {method.levels[-1]}"
        for method in METHODS.values()
        if method.levels
    )


def _add_qat(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("Intel QAT").add_argument
    add(
        "--qat-fallback",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compress in software where no QAT device answers (default on; off: exit code 2)",
    )
    add(
        "--qat-buffer",
        metavar="SIZE",
        default="64K",
        help="bytes of one request and member, a power of two, 4K to 512K (default 64K)",
    )
    add(
        "--qat-timeout",
        metavar="SECONDS",
        default=f"{DEFAULT_TIMEOUT_SECONDS:g}",
        help="seconds after which a request without an answer is given up and done in software; the device "
        f"is then left alone (default {DEFAULT_TIMEOUT_SECONDS:g})",
    )


def _add_policy(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("when to stop").add_argument
    add(
        "--policy",
        metavar="NAME",
        default="ferry",
        help="ferry (compares guest bytes with the rate of guest bytes) or qemu (compares them with "
        "wire bandwidth, as QEMU does) (default ferry)",
    )
    add(
        "--max-bandwidth",
        metavar="RATE",
        default="0",
        help="wire bytes per second over all channels, 0 is no limit (default 0)",
    )
    add(
        "--downtime-limit",
        metavar="MS",
        default="300",
        help="milliseconds that the guest may stand still at switchover (default 300)",
    )
    add(
        "--max-rounds",
        metavar="N",
        default="100",
        help="rounds with the guest running, then exit code 3; 0 is no limit (default 100)",
    )
    add(
        "--timeout",
        metavar="SECONDS",
        default="0",
        help="seconds from the first packet, then exit code 3; 0 is no limit (default 0)",
    )
    add(
        "--converge",
        metavar="HOW",
        default="none",
        help="what to do for a guest that writes too fast: none (end with exit code 3), throttle (slow "
        "it down), downtime-ramp (allow a longer downtime, step by step) (default none)",
    )
    for name, default, what in (
        ("trigger", "50", "per cent of the bytes moved that the guest must dirty in a round, 1 to 100"),
        ("initial", "20", "per cent of its speed taken at first, 1 to 99"),
        ("increment", "10", "per cent more at each further step, 1 to 99"),
        ("max", "99", "per cent at most, 1 to 99"),
    ):
        add(
            f"--throttle-{name}",
            metavar="PERCENT",
            default=default,
            help=f"{what} (default {default}, as QEMU's)",
        )
    add(
        "--downtime-max",
        metavar="MS",
        help="milliseconds that downtime-ramp may go up to (default three times --downtime-limit)",
    )


def _add_result(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the result").add_argument
    add(
        "--verify",
        nargs="?",
        const="images",
        default="images",
        metavar="HOW",
        help="check the copy at the end, off the clock: images (byte for byte), invariant (the "
        "self-check of --preset self-check, without the source), both (default images)",
    )
    add("--no-verify", dest="verify", action="store_const", const=None, help="do not check the copy")
    add(
        "--json",
        metavar="FILE",
        help="write the result as JSON; - is standard output, with nothing else on it (default none)",
    )
    add("--quiet", action="store_true", help="no progress and no warnings (default off)")
