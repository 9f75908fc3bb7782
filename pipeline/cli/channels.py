"""The part of a command line about how pages are carried: methods, channels, packets, the QAT device."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from guestmem.dirty_log import LOGS, LOGS_HELP
from guestmem.page import PAGE_BYTES
from guestmem.units import show_size
from pipeline.cli.connection import ConnectionOptions
from pipeline.cli.values import Given, one_of
from pipeline.codecs import METHODS
from pipeline.errors import UsageError
from pipeline.net.address import Address
from pipeline.options import (
    AUTO,
    DEFAULT_CHANNELS,
    DEFAULT_PACKET_BYTES,
    DEFAULT_QUEUE_BYTES,
    MAX_PACKET_BYTES,
    MAX_QAT_TIMEOUT_SECONDS,
    MAX_QUEUE_DEPTH,
    MAX_RAM_BYTES,
    MAX_WORKERS,
    MIN_PACKET_BYTES,
    QatOptions,
    has_queue,
)
from qat.session import MAX_HW_BUFF_BYTES, MIN_HW_BUFF_BYTES

METHOD_NAMES = (AUTO, *METHODS)
NONE = "none"
ON_DEVICE = ("qatzip", AUTO)
"""Methods that may use a QAT device."""

DECODE_PLACES = ("cpu", "hardware")
QAT = QatOptions()


@dataclass(frozen=True)
class MethodChoice:
    """A method, and the level it is to have; None is the method's default, or its own choice."""

    name: str
    level: int | None

    @property
    def resolved_level(self) -> int | None:
        """The level that is used; None for a method that has none, and for auto."""
        if self.name == AUTO or not METHODS[self.name].levels:
            return None
        return METHODS[self.name].default_level if self.level is None else self.level


def add_channel_arguments(parser: argparse.ArgumentParser, *, several_methods: bool) -> None:
    """Methods, channels and packets. `several_methods`: --method takes a list."""
    add = parser.add_argument_group("channels").add_argument
    listed = (
        "; several with commas between, as in none,zstd:3,auto, are run in turn" if several_methods else ""
    )
    add(
        "--method",
        metavar="LIST" if several_methods else "METHOD",
        help=f"{', '.join(METHOD_NAMES)}, with :LEVEL if wanted{listed} (default {AUTO}: the fastest "
        "for each packet, given the wire, the CPUs and the memory; it prefers a QAT device)",
    )
    add("--level", metavar="N", help=f"compression level of a single --method: {_levels()} (default 1)")
    add(
        "--channels",
        metavar="N",
        help=f"send processes, 1 to {MAX_WORKERS} (default {DEFAULT_CHANNELS})",
    )
    add(
        "--packet-size",
        metavar="SIZE",
        help="guest bytes in a packet, a multiple of 4K, 4K to 4M "
        f"(default {show_size(DEFAULT_PACKET_BYTES)})",
    )
    add(
        "--queue-depth",
        metavar="N",
        help=f"packets in the queue at most, 1 to {MAX_QUEUE_DEPTH} "
        "(default: four times the channels plus twice the receivers, fewer where packets are large)",
    )
    add(
        "--delta",
        metavar="BUDGET",
        help="memory for sent versions of pages that come back, so that only what changed goes then; 0 is "
        "none (default auto: up to half of RAM where a link limits the run, for as long as it pays)",
    )
    add(
        "--zero-copy",
        action="store_true",
        default=None,
        help="over plain TCP with --method none: pages are sent from where they lie, and the result says how "
        "much the kernel copied all the same (default off)",
    )
    add(
        "--dirty-log",
        metavar="LOG",
        help=f"who notes what the guest writes: {LOGS_HELP}, auto (default auto: the first that works)",
    )


def add_qat_arguments(parser: argparse.ArgumentParser) -> None:
    """How the sending side uses the QAT device."""
    add = parser.add_argument_group("Intel QAT").add_argument
    add(
        "--qat-fallback",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="compress in software where no QAT device answers (default on; off: exit code 2)",
    )
    add(
        "--qat-buffer",
        metavar="SIZE",
        help="bytes of one request and member, a power of two, 4K to 512K "
        f"(default {show_size(QAT.buffer_bytes)})",
    )
    add(
        "--qat-timeout",
        metavar="SECONDS",
        help="seconds after which a request without an answer is given up and done in software; the device "
        f"is then left alone (default {QAT.timeout_seconds:g})",
    )


def add_decode_argument(parser: argparse.ArgumentParser) -> None:
    """Where the receiving side decompresses."""
    parser.add_argument_group("the destination").add_argument(
        "--qat-decode",
        metavar="WHERE",
        help=f"where receivers decompress qatzip: {' or '.join(DECODE_PLACES)} (default {QAT.decode})",
    )


def _levels() -> str:
    return ", ".join(
        f"{method.name} {method.levels[0]} to {method.levels[-1]}"
        for method in METHODS.values()
        if method.levels
    )


def read_methods(given: Given) -> tuple[MethodChoice, ...]:
    """The methods, in the order in which they are run. Raises UsageError."""
    text = given.text("method")
    text = AUTO if text is None else text
    level = given.text("level")
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"--method '{text}': a name is missing; one of {', '.join(METHOD_NAMES)}")
    if level is not None and len(parts) > 1:
        raise UsageError(f"--level {level}: is for a single --method; with several write them as zstd:3")
    if level is not None and ":" in text:
        raise UsageError(f"--level {level}: --method {text} says the level already; leave one out")
    found = tuple(_method(part, level) for part in parts)
    for part, choice in zip(parts, found, strict=True):
        if sum((one.name, one.resolved_level) == (choice.name, choice.resolved_level) for one in found) > 1:
            raise UsageError(f"--method {part}: stands in the list twice; leave one out")
    return found


def read_method(given: Given) -> MethodChoice:
    """The one method of a command that runs once. Raises UsageError."""
    found = read_methods(given)
    if len(found) > 1:
        raise UsageError(f"--method {given.text('method')}: name one; pipeline.run takes several")
    return found[0]


def _method(part: str, level: str | None) -> MethodChoice:
    name, _, written = part.partition(":")
    one_of("--method", name, METHOD_NAMES)
    option = f"--method {name}:{written}" if written else f"--level {level}"
    written = written or (level or "")
    if not written:
        if ":" in part:
            raise UsageError(f"--method {part}: a level must follow the colon")
        return MethodChoice(name, None)
    try:
        value = int(written)
    except ValueError:
        raise UsageError(f"{option}: not a whole number") from None
    if name == AUTO:
        raise UsageError(f"{option}: method auto chooses levels itself; name another --method")
    levels = METHODS[name].levels
    if not levels:
        raise UsageError(f"{option}: method {name} has no levels")
    if value == 0 and METHODS[name].zero_level is not None:
        raise UsageError(f"{option}: is the library's own default; write {METHODS[name].zero_level}")
    if value not in levels:
        raise UsageError(f"{option}: method {name} takes {levels[0]} to {levels[-1]}")
    return MethodChoice(name, value)


def read_channels(given: Given) -> int:
    """How many. Raises UsageError."""
    return given.whole("channels", 1, MAX_WORKERS, DEFAULT_CHANNELS)


def read_packet_bytes(given: Given) -> int:
    """Guest bytes of a packet at most. Raises UsageError."""
    return given.size(
        "packet_size", MIN_PACKET_BYTES, MAX_PACKET_BYTES, DEFAULT_PACKET_BYTES, multiple_of=PAGE_BYTES
    )


def read_queue_depth(
    given: Given, methods: tuple[MethodChoice, ...], transport: str, channels: int, receivers: int
) -> int:
    """Slots; by default enough for every worker to have one in hand and more waiting, in DEFAULT_QUEUE_BYTES
    where that is possible. Raises UsageError."""
    if not any(has_queue(transport, method.name) for method in methods):
        given.refuse(("queue_depth",), f"over {transport} a queue is for --method {AUTO}; leave it out")
    packets = DEFAULT_QUEUE_BYTES // read_packet_bytes(given)
    usual = max(channels + receivers, min(4 * channels + 2 * receivers, packets))
    return given.whole("queue_depth", 1, MAX_QUEUE_DEPTH, usual)


def read_zero_copy(
    given: Given, methods: tuple[MethodChoice, ...], connection: ConnectionOptions | None, to: Address | None
) -> bool:
    """Whether pages are sent without a copy; `connection` None is a transport without sockets. Raises
    UsageError where they cannot be."""
    if connection is None:
        given.refuse(("zero_copy",), "is for --transport tcp; leave it out")
    if any(method.name != NONE for method in methods):
        given.refuse(("zero_copy",), "what a method compresses is in no guest RAM: give --method none")
    if connection is not None and connection.tls is not None:
        given.refuse(("zero_copy",), "TLS has to copy; leave out --tls-dir or --zero-copy")
    if to is not None and to.path:
        given.refuse(("zero_copy",), "is for TCP; a Unix socket copies")
    return given.flag("zero_copy")


def read_delta(given: Given, *, zero_copy: bool) -> int | None:
    """Bytes for kept versions of pages; None where the run is to find out. Raises UsageError."""
    text = given.text("delta")
    if text is None or text == AUTO:
        return 0 if zero_copy else None
    if text.strip() == "0":
        return 0
    if zero_copy:
        raise UsageError(
            "--delta: what is sent from where it lies is no base for a delta; leave out --zero-copy"
        )
    return given.size("delta", PAGE_BYTES, MAX_RAM_BYTES, 0)


def read_dirty_log(given: Given) -> str:
    """By name. Raises UsageError."""
    return given.choice("dirty_log", LOGS, "auto")


def read_qat(given: Given, methods: tuple[MethodChoice, ...], *, decode: str = QAT.decode) -> QatOptions:
    """How the device is used. Raises UsageError, also where no method would use it."""
    if not any(method.name in ON_DEVICE for method in methods):
        why = f"is for --method {' and '.join(ON_DEVICE)}; leave it out"
        given.refuse(("qat_fallback", "qat_buffer", "qat_timeout"), why)
        if decode != QAT.decode:
            raise UsageError(f"--qat-decode {decode}: {why}")
    text = given.text("qat_buffer")
    buffer = given.size("qat_buffer", MIN_HW_BUFF_BYTES, MAX_HW_BUFF_BYTES, QAT.buffer_bytes)
    if buffer & (buffer - 1):
        raise UsageError(f"--qat-buffer {text}: must be a power of two, 4K to 512K")
    timeout = given.above_zero("qat_timeout", MAX_QAT_TIMEOUT_SECONDS, "seconds", QAT.timeout_seconds)
    fallback = QAT.fallback if not given.has("qat_fallback") else given.flag("qat_fallback")
    return QatOptions(fallback, buffer, timeout, decode)


def read_decode(given: Given) -> str:
    """Where the receiving side decompresses. Raises UsageError."""
    return given.choice("qat_decode", DECODE_PLACES, QAT.decode)
