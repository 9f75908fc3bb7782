"""Another host than this one: how fast its CPUs compress, and which QAT devices it has. A TOML file.

    title = "..."                      source = "where the figures are from"
    cpus = 16                          of a host; left out: they are never the limit
    link = "50Gbit"                    what joins two such hosts; left out: no limit
    [[codec]]                          of one CPU, bytes of guest memory a second
    method = "zstd"                    level = 1
    compress_bytes_per_second = 400e6  decompress_bytes_per_second = 1500e6
    [qat]                              as `pipeline.forecast.qat_device.QatDevice` names its figures
    devices = 4                        device_bytes_per_second = 4.8e9     latency_us = 100
    send_cpu_ns = 0.3                  recv_cpu_ns = 0.3
    [calibration]                      instead of speeds: the published rows that they are computed from
    own = "intel"                      (`tools.forecast.published.calibration`)
    [calibration.intel]                codec = "TABLE/CHANNELS/METHOD"    device = "..."    devices = 4

All that a profile says is a model's word: what is forecast from it is labelled so.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

from guestmem.workload import parse_rate
from pipeline.codecs import METHODS
from pipeline.errors import UsageError
from pipeline.forecast.qat_device import PACKET_BYTES, QatDevice
from pipeline.forecast.situation import Batches, Candidate

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Table = dict[str, Any]
Kind = Literal["text", "whole", "number"]

MOST_DEVICES, MOST_ENGINES = 256, 1024
MOST_NS, MOST_US = 1e6, 1e7
FASTEST_BYTES_PER_SECOND = 1e15


@dataclass(frozen=True)
class CodecSpeed:
    """CPU nanoseconds a byte of guest memory, of one CPU."""

    method: str
    level: int | None
    compress_ns: float
    decompress_ns: float


@dataclass(frozen=True)
class HostRows:
    """A published host's rows that calibrate, by `TABLE/CHANNELS/METHOD`, and how many devices it has."""

    codec: str
    device: str
    devices: int


@dataclass(frozen=True)
class Calibration:
    """Published hosts by name; `own` is this profile's."""

    own: str
    hosts: dict[str, HostRows]


@dataclass(frozen=True)
class HostProfile:
    """`cpus` None and `link_bytes_per_second` 0 are no limit."""

    title: str
    source: str
    cpus: float | None
    link_bytes_per_second: int
    codecs: tuple[CodecSpeed, ...]
    qat: QatDevice | None
    calibration: Calibration | None = None

    def speed(self, method: str, level: int | None) -> CodecSpeed | None:
        return next((one for one in self.codecs if (one.method, one.level) == (method, level)), None)

    def at_its_speed(self, measured: Candidate) -> Candidate:
        """What was measured here, with this profile's speed where it has one."""
        speed = self.speed(measured.method, measured.level)
        if speed is None:
            return measured
        whole, written = (_at(speed, batches) for batches in (measured.whole, measured.written))
        return Candidate(measured.method, measured.level, whole, written, modelled=True)

    def on_its_device(self, zlib: Candidate) -> Candidate:
        """Method qatzip, whose payloads are told from those of zlib on the same pages."""
        assert self.qat is not None
        ratio = self.qat.payload_over_zlib
        whole, written = (_longer(batches, ratio) for batches in (zlib.whole, zlib.written))
        return Candidate("qatzip", 1, whole, written, modelled=True, device=self.qat)


def _at(speed: CodecSpeed, batches: Batches) -> Batches:
    plain = batches.plain_bytes
    return Batches(plain, batches.payload_bytes, plain * speed.compress_ns, plain * speed.decompress_ns)


def _longer(batches: Batches, ratio: float) -> Batches:
    payload = (batches.payload_bytes * ratio).clip(max=batches.plain_bytes)
    return Batches(batches.plain_bytes, payload, batches.compress_ns, batches.decompress_ns)


def speed_of(candidate: Candidate) -> CodecSpeed | None:
    """What was measured here, as a profile has it; None where there were no pages."""
    batches = candidate.whole
    plain = float(batches.plain_bytes.sum())
    if not plain:
        return None
    compress, decompress = float(batches.compress_ns.sum()), float(batches.decompress_ns.sum())
    return CodecSpeed(candidate.method, candidate.level, compress / plain, decompress / plain)


# -------------------------------------------------------------------- reading


def read_profile(path: Path) -> HostProfile:
    """Raises UsageError, in one line with what is wrong."""
    try:
        raw = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise UsageError(f"host profile {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"host profile {path}: not a text in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"host profile {path}: {error}") from error
    try:
        return _profile(raw)
    except ValueError as error:
        raise UsageError(f"host profile {path}: {error}") from error


def _profile(raw: Table) -> HostProfile:
    _known("", raw, ("title", "source", "cpus", "link", "codec", "qat", "calibration"))
    codecs = raw.get("codec", [])
    if not isinstance(codecs, list):
        raise ValueError("codec: write [[codec]]")
    qat, calibration = raw.get("qat"), raw.get("calibration")
    if calibration is not None and (qat is not None or codecs):
        raise ValueError("calibration: stands instead of codec and qat")
    if calibration is None and qat is None and not codecs:
        raise ValueError("has neither a codec nor a QAT device")
    speeds = tuple(_codec(number, one) for number, one in enumerate(codecs, 1))
    if len({(one.method, one.level) for one in speeds}) < len(speeds):
        raise ValueError("codec: the same method and level twice")
    return HostProfile(
        _text("", raw, "title"),
        _text("", raw, "source"),
        _number("", raw, "cpus", 0.1, 1e5) if "cpus" in raw else None,
        _rate(raw),
        speeds,
        None if qat is None else _device(_table("qat", qat)),
        None if calibration is None else _calibration(_table("calibration", calibration)),
    )


def _rate(raw: Table) -> int:
    text = raw.get("link", "0")
    if not isinstance(text, str):
        raise ValueError('link: write it as text, "10Gbit"')
    try:
        return parse_rate(text)
    except ValueError as error:
        raise ValueError(f"link {text}: {error}") from error


def _codec(number: int, raw: Any) -> CodecSpeed:
    where = f"codec {number}: "
    table = _table(f"codec {number}", raw)
    speeds = ("compress_bytes_per_second", "decompress_bytes_per_second")
    _known(where, table, ("method", "level", *speeds))
    method = _text(where, table, "method")
    if method not in METHODS or method == "qatzip":
        raise ValueError(f"{where}method {method} is none of a CPU's")
    level = None
    if METHODS[method].levels:
        level = int(_number(where, table, "level", -1000, 1000, whole=True))
    elif "level" in table:
        raise ValueError(f"{where}{method} has no level")
    rates = [_number(where, table, key, 1.0, FASTEST_BYTES_PER_SECOND) for key in speeds]
    return CodecSpeed(method, level, 1e9 / rates[0], 1e9 / rates[1])


LIMITS: dict[str, tuple[float, float]] = {
    "devices": (1, MOST_DEVICES),
    "device_bytes_per_second": (1e3, FASTEST_BYTES_PER_SECOND),
    "latency_us": (0, MOST_US),
    "request_us": (0, MOST_US),
    "engines": (1, MOST_ENGINES),
    "request_bytes": (512, PACKET_BYTES),
    "queue_requests": (0, 1 << 20),
    "instances": (0, 1 << 20),
    "payload_over_zlib": (0.01, 100),
}
"""Of a device's figures; of those in nanoseconds 0 to a millisecond."""


def _device(raw: Table) -> QatDevice:
    items = {item.name: item for item in fields(QatDevice)}
    _known("qat: ", raw, tuple(items))
    given = {}
    for name, item in items.items():
        if name in raw or item.default is MISSING:
            low, high = LIMITS.get(name, (0, MOST_NS))
            given[name] = _number("qat: ", raw, name, low, high, whole=item.type == "int")
    return QatDevice(**cast(Any, given))


def _calibration(raw: Table) -> Calibration:
    own = _text("calibration: ", raw, "own")
    hosts = {}
    for name, table in raw.items():
        if name == "own":
            continue
        where = f"calibration.{name}: "
        rows = _table(f"calibration.{name}", table)
        _known(where, rows, ("codec", "device", "devices"))
        hosts[name] = HostRows(
            _text(where, rows, "codec"),
            _text(where, rows, "device"),
            int(_number(where, rows, "devices", 1, MOST_DEVICES, whole=True)),
        )
    if own not in hosts or len(hosts) != 2:
        raise ValueError("calibration: needs the rows of two hosts, of which `own` names one")
    return Calibration(own, hosts)


def _table(where: str, raw: Any) -> Table:
    if not isinstance(raw, dict):
        raise ValueError(f"{where}: must be a table")
    return cast(Table, raw)


def _known(where: str, raw: Table, known: tuple[str, ...]) -> None:
    for name in raw:
        if name not in known:
            raise ValueError(f"{where}{name!r} is not known; known are {', '.join(known)}")


def _text(where: str, raw: Table, key: str) -> str:
    if key not in raw:
        raise ValueError(f"{where}{key} is missing")
    if not isinstance(raw[key], str) or not raw[key]:
        raise ValueError(f"{where}{key} must be a text")
    return str(raw[key])


def _number(where: str, raw: Table, key: str, low: float, high: float, *, whole: bool = False) -> float:
    if key not in raw:
        raise ValueError(f"{where}{key} is missing")
    value = raw[key]
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise ValueError(f"{where}{key} must be a {'whole ' if whole else ''}number")
    if not (low <= value <= high) or not math.isfinite(value):
        raise ValueError(f"{where}{key} {value}: must be {low:g} to {high:g}")
    return value


# -------------------------------------------------------------------- writing


def profile_toml(profile: HostProfile) -> str:
    """As `read_profile` takes it; speeds only, no rows."""
    lines = [f"title = {json.dumps(profile.title)}", f"source = {json.dumps(profile.source)}"]
    if profile.cpus is not None:
        lines.append(f"cpus = {profile.cpus:g}")
    if profile.link_bytes_per_second:
        lines.append(f'link = "{profile.link_bytes_per_second}"')
    for one in profile.codecs:
        lines += ["", "[[codec]]", f"method = {json.dumps(one.method)}"]
        lines += [] if one.level is None else [f"level = {one.level}"]
        lines.append(f"compress_bytes_per_second = {1e9 / one.compress_ns:.0f}")
        lines.append(f"decompress_bytes_per_second = {1e9 / one.decompress_ns:.0f}")
    if profile.qat is not None:
        figures = {item.name: getattr(profile.qat, item.name) for item in fields(QatDevice)}
        lines += ["", "[qat]", *(f"{name} = {value!r}" for name, value in figures.items())]
    return "\n".join(lines) + "\n"
