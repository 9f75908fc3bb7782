"""One validated Options object; every limit and default in one place."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from guestmem.content import Content, Corpus, Image, files_under
from guestmem.ram import MIN_RAM_BYTES
from guestmem.segment import PAGE_BYTES
from pipeline.codecs import METHODS
from pipeline.errors import UsageError
from pipeline.queue import MAX_SLOTS
from pipeline.units import parse_int, parse_number, parse_size, show_size
from qat.session import MAX_HW_BUFF_BYTES, MIN_HW_BUFF_BYTES

AUTO = "auto"

DEFAULT_SIZE_BYTES = 1 << 30
MAX_RAM_BYTES = PAGE_BYTES << 32
DEFAULT_FILLED = 0.9375
DEFAULT_CHANNELS = 2
MAX_WORKERS = 64
DEFAULT_PACKET_BYTES = 512 << 10
MIN_PACKET_BYTES, MAX_PACKET_BYTES = PAGE_BYTES, 4 << 20
DEFAULT_QAT_BUFFER_BYTES = 64 << 10
DEFAULT_DOWNTIME_LIMIT_MS = 300.0
MAX_DOWNTIME_LIMIT_MS = 2_000_000.0
DEFAULT_DIRTY_RATE = 32 << 20
DEFAULT_MAX_ROUNDS = 100
MAX_RATE = 1 << 44


@dataclass(frozen=True)
class Options:
    """What a run was asked to do, resolved: sizes in bytes, rates in bytes per second.

    `method` may still be `auto`, and `level` None, until the host has been asked
    (`pipeline.run`); a result always shows them resolved.
    """

    size_bytes: int
    image: str | None
    fill: str | None
    filled: float
    method: str
    level: int | None
    channels: int
    receivers: int
    packet_bytes: int
    queue_depth: int
    prealloc: bool
    max_bandwidth: int
    downtime_limit_ms: float
    dirty_rate: int
    seed: int
    max_rounds: int
    timeout_seconds: float
    qat_fallback: bool
    qat_buffer_bytes: int
    qat_decode: str
    verify: bool
    json: str | None
    quiet: bool

    @property
    def packet_pages(self) -> int:
        """Pages of a packet at most."""
        return self.packet_bytes // PAGE_BYTES

    def content(self) -> Content:
        """What fills guest RAM."""
        if self.image is not None:
            return Image(Path(self.image))
        return Corpus(None if self.fill is None else Path(self.fill), self.filled)

    def record(self) -> dict[str, Any]:
        """For the result file."""
        return asdict(self)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see --help)")


def build_parser() -> argparse.ArgumentParser:
    """The command line of `python -m pipeline.run`. Values are checked by `parse`."""
    parser = _Parser(
        prog="python -m pipeline.run",
        description="Migrate a live guest's RAM from a source image to a destination mapping, "
        "through channels that compress on Intel QAT or on the CPU, and measure it.",
        epilog="Sizes and rates take K, M, G (1024) and are bytes and bytes per second. Exit codes: "
        "0 completed (and verified), 1 failed, 2 wrong usage or this host cannot do it, "
        "3 did not converge, 130 cancelled.",
        allow_abbrev=False,
    )
    ram = parser.add_argument_group("guest RAM")
    ram.add_argument("--size", metavar="SIZE", help="RAM of the guest, bytes (default 1G, or the image's)")
    ram.add_argument("--image", metavar="FILE", help="a raw RAM image to start from (default none)")
    ram.add_argument(
        "--fill",
        metavar="PATH",
        help="repeat the bytes of a file, or of all files under a folder, over RAM "
        "(default: the files of this Python)",
    )
    ram.add_argument(
        "--filled",
        metavar="SHARE",
        help=f"share of RAM that is filled, 0 to 1; the rest is zero (default {DEFAULT_FILLED})",
    )
    guest = parser.add_argument_group("the guest")
    guest.add_argument(
        "--dirty-rate",
        metavar="RATE",
        default="32M",
        help="how fast the guest writes, bytes per second, 0 is idle (default 32M)",
    )
    guest.add_argument("--seed", metavar="N", default="1", help="seed of the guest's writes (default 1)")
    send = parser.add_argument_group("channels")
    send.add_argument(
        "--method",
        default=AUTO,
        help=f"{AUTO}, {', '.join(METHODS)} (default {AUTO}: qatzip where a QAT device answers, else zstd)",
    )
    send.add_argument("--level", metavar="N", help=f"compression level: {_levels()} (default 1)")
    send.add_argument(
        "--channels",
        metavar="N",
        default=str(DEFAULT_CHANNELS),
        help=f"send processes, 1 to {MAX_WORKERS} (default {DEFAULT_CHANNELS})",
    )
    send.add_argument(
        "--receivers",
        metavar="N",
        help=f"receive processes, 1 to {MAX_WORKERS} (default: as many as channels)",
    )
    send.add_argument(
        "--packet-size",
        metavar="SIZE",
        default="512K",
        help="guest bytes in a packet, a multiple of 4K, 4K to 4M (default 512K)",
    )
    send.add_argument(
        "--queue-depth",
        metavar="N",
        help=f"packets in the queue at most, 1 to {MAX_SLOTS} "
        "(default: twice the channels plus the receivers)",
    )
    send.add_argument(
        "--prealloc",
        action="store_true",
        help="give the destination its pages before the clock starts (default: on first touch)",
    )
    qat = parser.add_argument_group("Intel QAT")
    qat.add_argument(
        "--qat-fallback",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compress in software where no QAT device answers (default on; off: exit code 2)",
    )
    qat.add_argument(
        "--qat-buffer",
        metavar="SIZE",
        default="64K",
        help="bytes of one request and member, a power of two, 4K to 512K (default 64K)",
    )
    qat.add_argument(
        "--qat-decode",
        metavar="WHERE",
        default="cpu",
        help="where receivers decompress qatzip: cpu or hardware (default cpu)",
    )
    policy = parser.add_argument_group("when to stop")
    policy.add_argument(
        "--max-bandwidth",
        metavar="RATE",
        default="0",
        help="wire bytes per second over all channels, 0 is no limit (default 0)",
    )
    policy.add_argument(
        "--downtime-limit",
        metavar="MS",
        default="300",
        help="milliseconds that the guest may stand still at switchover (default 300)",
    )
    policy.add_argument(
        "--max-rounds",
        metavar="N",
        default=str(DEFAULT_MAX_ROUNDS),
        help=f"rounds with the guest running, then exit code 3; 0 is no limit (default {DEFAULT_MAX_ROUNDS})",
    )
    policy.add_argument(
        "--timeout",
        metavar="SECONDS",
        default="0",
        help="seconds from the first packet, then exit code 3; 0 is no limit (default 0)",
    )
    result = parser.add_argument_group("the result")
    result.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compare both images byte for byte at the end, off the clock (default on)",
    )
    result.add_argument(
        "--json",
        metavar="FILE",
        help="write the result as JSON; - is standard output, with nothing else on it (default none)",
    )
    result.add_argument("--quiet", action="store_true", help="no progress and no warnings (default off)")
    return parser


def _levels() -> str:
    return ", ".join(
        f"{method.name} {method.levels[0]} to {method.levels[-1]}"
        for method in METHODS.values()
        if method.levels
    )


def parse(arguments: list[str]) -> Options:
    """Options from a command line. Raises UsageError with the value and the valid range."""
    given = build_parser().parse_args(_attach_negative(arguments))
    channels = _within("--channels", parse_int("--channels", given.channels), 1, MAX_WORKERS)
    receivers = channels
    if given.receivers is not None:
        receivers = _within("--receivers", parse_int("--receivers", given.receivers), 1, MAX_WORKERS)
    depth = 2 * channels + receivers
    if given.queue_depth is not None:
        depth = _within("--queue-depth", parse_int("--queue-depth", given.queue_depth), 1, MAX_SLOTS)
    if given.image is not None and (given.fill is not None or given.filled is not None):
        raise UsageError("--image: a RAM image is used as it is; leave out --fill and --filled")
    filled = DEFAULT_FILLED if given.filled is None else _share("--filled", given.filled)
    options = Options(
        size_bytes=_size(given.size, given.image),
        image=given.image,
        fill=_readable_corpus(given.fill),
        filled=1.0 if given.image is not None else filled,
        method=given.method,
        level=None if given.level is None else parse_int("--level", given.level),
        channels=channels,
        receivers=receivers,
        packet_bytes=_packet_size(given.packet_size),
        queue_depth=depth,
        prealloc=given.prealloc,
        max_bandwidth=_rate("--max-bandwidth", given.max_bandwidth),
        downtime_limit_ms=_downtime_limit(given.downtime_limit),
        dirty_rate=_rate("--dirty-rate", given.dirty_rate),
        seed=_within("--seed", parse_int("--seed", given.seed), 0, 2**63 - 1),
        max_rounds=_within("--max-rounds", parse_int("--max-rounds", given.max_rounds), 0, 10**9),
        timeout_seconds=_seconds("--timeout", given.timeout),
        qat_fallback=given.qat_fallback,
        qat_buffer_bytes=_qat_buffer(given.qat_buffer),
        qat_decode=_one_of("--qat-decode", given.qat_decode, ("cpu", "hardware")),
        verify=given.verify,
        json=_writable_json(given.json),
        quiet=given.quiet,
    )
    _one_of("--method", options.method, (AUTO, *METHODS))
    if options.method != AUTO:
        resolved_level(options.method, options.level)
    return options


def _attach_negative(arguments: list[str]) -> list[str]:
    """`--size -1G` as `--size=-1G`: argparse takes what begins with a dash for an option."""
    attached: list[str] = []
    for argument in arguments:
        if re.match(r"-\d", argument) and attached and re.fullmatch(r"--[a-z-]+", attached[-1]):
            attached[-1] += "=" + argument
        else:
            attached.append(argument)
    return attached


def resolved_level(method_name: str, level: int | None) -> int:
    """The level to use, by method. Raises UsageError outside the method's range."""
    method = METHODS[method_name]
    if level is None:
        return method.default_level
    if not method.levels:
        raise UsageError(f"--level {level}: method {method_name} has no levels")
    if level not in method.levels:
        raise UsageError(
            f"--level {level}: method {method_name} takes {method.levels[0]} to {method.levels[-1]}"
        )
    return level


def _within(option: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise UsageError(f"{option} {value}: must be {low} to {high}")
    return value


def _one_of(option: str, value: str, names: tuple[str, ...]) -> str:
    if value not in names:
        raise UsageError(f"{option} {value}: must be one of {', '.join(names)}")
    return value


def _share(option: str, text: str) -> float:
    value = parse_number(option, text)
    if not 0 <= value <= 1:
        raise UsageError(f"{option} {text}: must be 0 to 1")
    return value


def _rate(option: str, text: str) -> int:
    value = parse_size(option, text)
    if not 0 <= value <= MAX_RATE:
        raise UsageError(f"{option} {text}: must be 0 to {show_size(MAX_RATE)} bytes per second")
    return value


def _seconds(option: str, text: str) -> float:
    value = parse_number(option, text)
    if value < 0:
        raise UsageError(f"{option} {text}: must be 0 or more seconds")
    return value


def _downtime_limit(text: str) -> float:
    value = parse_number("--downtime-limit", text)
    if not 0 < value <= MAX_DOWNTIME_LIMIT_MS:
        raise UsageError(
            f"--downtime-limit {text}: must be above 0 and at most {MAX_DOWNTIME_LIMIT_MS:.0f} ms"
        )
    return value


def _packet_size(text: str) -> int:
    value = parse_size("--packet-size", text)
    if not MIN_PACKET_BYTES <= value <= MAX_PACKET_BYTES or value % PAGE_BYTES:
        raise UsageError(f"--packet-size {text}: must be a multiple of 4K, 4K to 4M")
    return value


def _qat_buffer(text: str) -> int:
    value = parse_size("--qat-buffer", text)
    if not MIN_HW_BUFF_BYTES <= value <= MAX_HW_BUFF_BYTES or value & (value - 1):
        raise UsageError(f"--qat-buffer {text}: must be a power of two, 4K to 512K")
    return value


def _size(text: str | None, image: str | None) -> int:
    if image is None:
        size = DEFAULT_SIZE_BYTES if text is None else parse_size("--size", text)
        return _ram_size(f"--size {text}", size)
    path = Path(image)
    if not path.is_file():
        raise UsageError(f"--image {image}: no such file")
    if not os.access(path, os.R_OK):
        raise UsageError(f"--image {image}: cannot be read")
    size = _ram_size(f"--image {image} of {path.stat().st_size} bytes", path.stat().st_size)
    if text is not None and parse_size("--size", text) != size:
        raise UsageError(f"--size {text}: the image has {size} bytes; leave out --size")
    return size


def _ram_size(what: str, size: int) -> int:
    if not MIN_RAM_BYTES <= size <= MAX_RAM_BYTES or size % PAGE_BYTES:
        raise UsageError(
            f"{what}: must be a multiple of the page ({PAGE_BYTES} bytes), "
            f"{show_size(MIN_RAM_BYTES)} to {show_size(MAX_RAM_BYTES)}"
        )
    return size


def _readable_corpus(text: str | None) -> str | None:
    if text is None:
        return None
    path = Path(text)
    if not path.exists():
        raise UsageError(f"--fill {text}: no such file or folder")
    if not path.is_file() and not path.is_dir():
        raise UsageError(f"--fill {text}: neither a file nor a folder")
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise UsageError(f"--fill {text}: cannot be read")
    paths = files_under(path)
    for file in paths:
        if not os.access(file, os.R_OK):
            raise UsageError(f"--fill {text}: {file} cannot be read")
    if not any(file.stat().st_size for file in paths):
        raise UsageError(f"--fill {text}: holds no bytes")
    return text


def _writable_json(text: str | None) -> str | None:
    if text is None or text == "-":
        return text
    path = Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"--json {text}: cannot be written; name a file in a folder that can")
    return text
