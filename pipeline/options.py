"""One validated Options object; every limit and default in one place."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from guestmem.guest import LOGS, VALID_NAME
from guestmem.segment import PAGE_BYTES
from guestmem.workload import parse_rate
from pipeline.cli.arguments import AUTO, MAX_WORKERS, build_run_parser, build_send_parser
from pipeline.cli.connection import parse_endpoint, parse_reconnect, parse_tls
from pipeline.cli.guest import (
    SELF_CHECK,
    GuestOptions,
    attach_negative,
    checked,
    parse_bytes,
    parse_guest,
    parse_number,
    parse_within,
)
from pipeline.codecs import METHODS
from pipeline.destination.verification import CHECKS
from pipeline.errors import UsageError
from pipeline.net.address import Address
from pipeline.net.tls import CLIENT, SERVER, Tls
from pipeline.packets.queue import MAX_SLOTS
from pipeline.policy import CONVERGE, POLICIES, PolicySettings
from qat.session import MAX_HW_BUFF_BYTES, MIN_HW_BUFF_BYTES

TRANSPORT_NAMES = ("queue", "tcp")
MIN_PACKET_BYTES, MAX_PACKET_BYTES = PAGE_BYTES, 4 << 20
MAX_DOWNTIME_LIMIT_MS = 2_000_000.0
MAX_QAT_TIMEOUT_SECONDS = 3600.0
DOWNTIME_RAMP_FACTOR = 3.0
GUEST_OPTIONS = (
    *("size", "image", "fill", "filled", "dirty_rate", "dirty_pattern", "dirty_content"),
    *("write_bytes", "preset", "phases", "seed"),
)


@dataclass(frozen=True)
class Options:
    """What a run was asked to do, resolved: sizes in bytes, rates in bytes per second.

    `level` is None until the method's default is put in its place (`pipeline.run`), and stays so for
    method `auto`, which chooses; `auto_with_qat` says whether a QAT device answered it. `guest` is
    None when the run attaches to a guest that somebody else made.
    """

    attach: str | None
    guest: GuestOptions | None
    method: str
    level: int | None
    channels: int
    receivers: int
    packet_bytes: int
    queue_depth: int
    prealloc: bool
    dirty_log: str
    max_bandwidth: int
    timeout_seconds: float
    policy: PolicySettings
    qat_fallback: bool
    qat_buffer_bytes: int
    qat_decode: str
    qat_timeout_seconds: float
    verify: str | None
    json: str | None
    quiet: bool
    transport: str = "queue"
    to: Address | None = None
    tls: Tls | None = None
    reconnect_seconds: float = 30.0
    insecure: bool = False
    auto_with_qat: bool = False

    @property
    def packet_pages(self) -> int:
        """Pages of a packet at most."""
        return self.packet_bytes // PAGE_BYTES

    def record(self) -> dict[str, Any]:
        """For the result file: one flat record. An attached guest's size is added by the run."""
        left_out = ("guest", "policy", "to", "tls")
        record = {name: value for name, value in asdict(self).items() if name not in left_out}
        record["to"] = None if self.to is None else str(self.to)
        record["tls_dir"] = None if self.tls is None else self.tls.folder
        guest = self.guest.record() if self.guest is not None else {}
        return {**guest, **record, **asdict(self.policy)}


def parse(arguments: list[str]) -> Options:
    """Options of `pipeline.run`. Raises UsageError with the value and the valid range."""
    given = build_run_parser().parse_args(attach_negative(arguments))
    transport = one_of("--transport", given.transport, TRANSPORT_NAMES)
    if transport == "tcp":
        if given.receivers is not None:
            raise UsageError(f"--receivers {given.receivers}: with tcp there is one for each channel")
        return replace(
            _parse(given),
            transport=transport,
            tls=parse_tls(given, CLIENT, SERVER),
            reconnect_seconds=parse_reconnect(given),
        )
    for name in ("tls_dir", "tls_peer"):
        if getattr(given, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')}: is for --transport tcp")
    return _parse(given)


def parse_send(arguments: list[str]) -> Options:
    """Options of `pipeline.send`. Raises UsageError."""
    given = build_send_parser().parse_args(attach_negative(arguments))
    to, tls = parse_endpoint("--to", given.to, given, CLIENT)
    given.receivers, given.prealloc, given.qat_decode = None, False, "cpu"
    reconnect = parse_reconnect(given)
    return replace(
        _parse(given), transport="tcp", to=to, tls=tls, reconnect_seconds=reconnect, insecure=given.insecure
    )


def _parse(given: argparse.Namespace) -> Options:
    channels = parse_within("--channels", given.channels, 1, MAX_WORKERS)
    receivers = channels
    if given.receivers is not None:
        receivers = parse_within("--receivers", given.receivers, 1, MAX_WORKERS)
    depth = 4 * channels + 2 * receivers
    if given.queue_depth is not None:
        depth = parse_within("--queue-depth", given.queue_depth, 1, MAX_SLOTS)
    verify = given.verify if given.verify is None else one_of("--verify", given.verify, tuple(CHECKS))
    one_of("--method", given.method, (AUTO, *METHODS))
    options = Options(
        attach=_guest_name(given),
        guest=_own_guest(given, verify),
        method=given.method,
        level=None if given.level is None else parse_within("--level", given.level, -(2**31), 2**31),
        channels=channels,
        receivers=receivers,
        packet_bytes=_packet_size(given.packet_size),
        queue_depth=depth,
        prealloc=given.prealloc,
        dirty_log=one_of("--dirty-log", given.dirty_log, LOGS),
        max_bandwidth=checked("--max-bandwidth", given.max_bandwidth, parse_rate),
        timeout_seconds=_seconds("--timeout", given.timeout),
        policy=_policy(given),
        qat_fallback=given.qat_fallback,
        qat_buffer_bytes=_qat_buffer(given.qat_buffer),
        qat_decode=one_of("--qat-decode", given.qat_decode, ("cpu", "hardware")),
        qat_timeout_seconds=_above_zero("--qat-timeout", given.qat_timeout),
        verify=verify,
        json=writable_json(given.json),
        quiet=given.quiet,
    )
    if options.method != AUTO:
        resolved_level(options.method, options.level)
    elif options.level is not None:
        raise UsageError(f"--level {options.level}: method auto chooses levels itself; name a --method too")
    return options


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


def _guest_name(given: argparse.Namespace) -> str | None:
    if given.attach is None:
        return None
    for name in GUEST_OPTIONS:
        if getattr(given, name) is not None:
            raise UsageError(
                f"--attach {given.attach}: that guest is there already; leave out --{name.replace('_', '-')}"
            )
    return valid_guest_name("--attach", given.attach)


def valid_guest_name(option: str, text: str) -> str:
    """A name a guest may have. Raises UsageError."""
    if not VALID_NAME.fullmatch(text):
        raise UsageError(f"{option} {text}: a name is 1 to 64 letters, digits, dots, dashes or underscores")
    return text


def _own_guest(given: argparse.Namespace, verify: str | None) -> GuestOptions | None:
    if given.attach is not None:
        return None
    if verify in ("invariant", "both"):
        settings = ("dirty_pattern", "dirty_content", "write_bytes", "phases")
        if given.preset not in (None, SELF_CHECK) or any(getattr(given, name) for name in settings):
            raise UsageError(
                f"--verify {verify}: only --preset {SELF_CHECK} can be judged without the source; "
                "leave out other workloads"
            )
        given.preset = SELF_CHECK
    return parse_guest(given)


def _policy(given: argparse.Namespace) -> PolicySettings:
    limit = _milliseconds("--downtime-limit", given.downtime_limit)
    longest = limit * DOWNTIME_RAMP_FACTOR
    if given.downtime_max is not None:
        longest = _milliseconds("--downtime-max", given.downtime_max)
        if longest < limit:
            raise UsageError(
                f"--downtime-max {given.downtime_max}: must be at least --downtime-limit, {limit:g} ms"
            )
    return PolicySettings(
        policy=one_of("--policy", given.policy, POLICIES),
        downtime_limit_ms=limit,
        downtime_max_ms=longest,
        max_rounds=parse_within("--max-rounds", given.max_rounds, 0, 10**9),
        converge=one_of("--converge", given.converge, CONVERGE),
        throttle_trigger=parse_within("--throttle-trigger", given.throttle_trigger, 1, 100),
        throttle_initial=parse_within("--throttle-initial", given.throttle_initial, 1, 99),
        throttle_increment=parse_within("--throttle-increment", given.throttle_increment, 1, 99),
        throttle_max=parse_within("--throttle-max", given.throttle_max, 1, 99),
    )


def one_of(option: str, value: str, names: tuple[str, ...]) -> str:
    """A name among `names`. Raises UsageError."""
    if value not in names:
        raise UsageError(f"{option} {value}: must be one of {', '.join(names)}")
    return value


def _seconds(option: str, text: str) -> float:
    value = parse_number(option, text)
    if value < 0:
        raise UsageError(f"{option} {text}: must be 0 or more seconds")
    return value


def _above_zero(option: str, text: str) -> float:
    value = parse_number(option, text)
    if not 0 < value <= MAX_QAT_TIMEOUT_SECONDS:
        raise UsageError(f"{option} {text}: must be above 0 and at most {MAX_QAT_TIMEOUT_SECONDS:g} seconds")
    return value


def _milliseconds(option: str, text: str) -> float:
    value = parse_number(option, text)
    if not 0 < value <= MAX_DOWNTIME_LIMIT_MS:
        raise UsageError(f"{option} {text}: must be above 0 and at most {MAX_DOWNTIME_LIMIT_MS:.0f} ms")
    return value


def _packet_size(text: str) -> int:
    value = parse_bytes("--packet-size", text)
    if not MIN_PACKET_BYTES <= value <= MAX_PACKET_BYTES or value % PAGE_BYTES:
        raise UsageError(f"--packet-size {text}: must be a multiple of 4K, 4K to 4M")
    return value


def _qat_buffer(text: str) -> int:
    value = parse_bytes("--qat-buffer", text)
    if not MIN_HW_BUFF_BYTES <= value <= MAX_HW_BUFF_BYTES or value & (value - 1):
        raise UsageError(f"--qat-buffer {text}: must be a power of two, 4K to 512K")
    return value


def writable_json(text: str | None) -> str | None:
    """A file that a result can be written to, or -. Raises UsageError."""
    if text is None or text == "-":
        return text
    path = Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"--json {text}: cannot be written; name a file in a folder that can")
    return text
