"""QEMU's tables of other accelerators, which nothing was calibrated on. TOML, one file a table:

    title, source, ram = "64G"         prealloc = true
    filled = 0.8                       share of RAM that is not zero; left out: what rows of `none` sent
    profile = "intel-thread"           whose CPU codecs these are
    rows = [[limit, channels, method, total ms, downtime ms, mbps, CPU %], ...]     mbps 0: not published
    gives_ratio = ["LIMIT/CHANNELS/METHOD"]     rows whose time gives the ratio, for want of a throughput
    [device]                           of method `method`; its calls wait busily where `busy` says so
    [unmodelled]                       method = "why"

The ratio is the guest's, not the model's word, so it is read from the tables; the time is not.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guestmem.units import parse_size
from guestmem.workload import parse_rate
from pipeline.auto.chooser import RECEIVE_NS, SEND_NS
from pipeline.forecast.beside import Beside
from pipeline.forecast.cost import Cost
from pipeline.forecast.host_profile import HostProfile
from pipeline.forecast.qat_device import QatDevice
from tools.forecast.profiles import profile_named
from tools.forecast.published.compared import Compared
from tools.forecast.published.model import Content, Modelled, cost_on, cpus_of, modelled

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent
NAMES = ("qpl", "uadk")


@dataclass(frozen=True)
class _Row:
    limit: str
    channels: int
    method: str
    total_ms: float
    downtime_ms: float
    throughput_mbps: float
    cpu: float

    @property
    def name(self) -> str:
        return f"{self.limit}/{self.channels}/{self.method}"

    @property
    def link(self) -> float:
        return float(parse_rate(self.limit))

    @property
    def wire_bytes(self) -> float:
        return self.total_ms * self.throughput_mbps * 1e3 / 8


@dataclass(frozen=True)
class OtherTable:
    """One table: its title and source, and its rows."""

    name: str
    title: str
    source: str
    rows: list[Compared]


def other_table(name: str) -> OtherTable:
    """One of `NAMES`."""
    raw: dict[str, Any] = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    rows = [_Row(*row) for row in raw["rows"]]
    profile = profile_named(raw["profile"])
    content = _content(raw, rows)
    shares = _given_shares(raw, rows, content)
    compared = [_compared(name, raw, row, profile, content, shares) for row in rows]
    return OtherTable(name, raw["title"], raw["source"], compared)


def _content(raw: dict[str, Any], rows: list[_Row]) -> Content:
    ram = parse_size(raw["ram"])
    if "filled" in raw:
        return Content(ram, ram * raw["filled"])
    plain = [row.wire_bytes for row in rows if row.method == "none"]
    return Content(ram, sum(plain) / len(plain))


def _given_shares(raw: dict[str, Any], rows: list[_Row], content: Content) -> dict[str, float]:
    """By method, from rows that fill the link."""
    named = raw.get("gives_ratio", [])
    return {
        row.method: row.total_ms / 1e3 * row.link / content.normal_bytes for row in rows if row.name in named
    }


def _compared(
    name: str,
    raw: dict[str, Any],
    row: _Row,
    profile: HostProfile,
    content: Content,
    shares: dict[str, float],
) -> Compared:
    why = raw.get("unmodelled", {}).get(row.method, "")
    share = shares.get(row.method, row.wire_bytes / content.normal_bytes or 1.0)
    cost = None if why else _cost(raw, row, profile, share)
    found = None
    if cost is not None:
        found = modelled(content, cost, row.channels, row.link, Beside(), cpus_of(profile))
        if row.method == raw["device"]["method"] and raw["device"]["busy"]:
            found = _busy(found, content, cost, row.channels)
    use = "gives the ratio" if row.name in raw.get("gives_ratio", []) else ""
    return Compared(
        *(f"{name}-{row.limit}", row.channels, row.method, row.total_ms, row.cpu, None),
        *(found, use, why),
    )


def _busy(found: Modelled, content: Content, cost: Cost, channels: int) -> Modelled:
    """With the CPU of waiting."""
    waited = content.normal_bytes * cost.send_wait_ns / 1e9 / (found.total_ms / 1e3) * 100
    return Modelled(found.total_ms, min(100.0 * channels, found.send_cpu + waited), found.recv_cpu)


def _cost(raw: dict[str, Any], row: _Row, profile: HostProfile, share: float) -> Cost | None:
    given = raw["device"]
    if row.method != given["method"]:
        return cost_on(profile, row.method, row.channels, share, prealloc=raw["prealloc"])
    if "device_bytes_per_second" not in given:
        return Cost(0.0, 0.0, share)
    device = QatDevice(
        devices=given["devices"],
        device_bytes_per_second=given["device_bytes_per_second"],
        latency_us=0.0,
        send_cpu_ns=SEND_NS,
        recv_cpu_ns=RECEIVE_NS,
        request_bytes=given["request_bytes"],
    )
    load = device.load(row.channels, row.channels, prealloc=raw["prealloc"])
    return Cost(0.0, 0.0, share, load.send_wait_ns, load.recv_wait_ns)
