"""PLAN.toml: VMs, hosts, links and limits. All keys: `tools/fleet/example.toml`, docs/evacuate.md."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from guestmem.page import PAGE_BYTES
from guestmem.workload import PRESETS
from pipeline.errors import UsageError
from pipeline.forecast.host_profile import HostProfile
from pipeline.options import MAX_DOWNTIME_LIMIT_MS
from pipeline.policy import CONVERGE, PolicySettings
from tools.evacuate.keys import MOST_SECONDS, Keys
from tools.forecast.profiles import profile_named

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_PROFILE = "zstd-readme"
DEFAULT_PORTS = (7100, 7199)
MOST_CURVE_POINTS = 1000
SMALLEST_LINK = 1000
"""Bytes a second."""


@dataclass(frozen=True)
class Limits:
    """`deadline_seconds` 0 is none. `start_seconds` pass between the order and the first page, `end_seconds`
    from the switchover until the stream is free again."""

    policy: PolicySettings
    streams_a_host: int
    deadline_seconds: float
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Noise:
    """By how much draws differ, standard deviations of shares: pace of writing, ratio, speed, link."""

    dirty: float
    ratio: float
    speed: float
    link: float


@dataclass(frozen=True)
class Link:
    """So much in each direction."""

    name: str
    bytes_per_second: int


@dataclass(frozen=True)
class Host:
    """`links` from the host outwards; `memory_bytes` free. `address`, `netns`, `worker` and `ports` are for
    --execute."""

    name: str
    links: tuple[str, ...]
    empty: bool
    cpus: float
    qat_devices: int
    memory_bytes: int
    profile: HostProfile
    address: str | None
    netns: str | None
    worker: str | None
    ports: tuple[int, int]


@dataclass(frozen=True)
class Relayed:
    """A VM of QEMU's: its monitor, the socket it migrates to; and at the destination the socket where the
    waiting QEMU listens, and that one's monitor."""

    qmp: str
    socket: str
    incoming: str
    incoming_qmp: str


@dataclass(frozen=True)
class Vm:
    """`curve` are points of (seconds, bytes): distinct memory written since. One of `ratio` and `sample`."""

    name: str
    host: str
    size_bytes: int
    zero_share: float
    ratio: float
    sample: Path | None
    preset: str | None
    curve: tuple[tuple[float, int], ...] | None
    dirty_rate: int
    working_set_bytes: int
    priority: int
    apart: str | None
    attach: str | None
    relayed: Relayed | None

    @property
    def pages(self) -> int:
        return self.size_bytes // PAGE_BYTES


@dataclass(frozen=True)
class Plan:
    """The question. Names are unique, and every name that is used is there. `settled` are VMs that have moved
    before, and where to."""

    title: str
    limits: Limits
    noise: Noise
    links: dict[str, Link]
    hosts: dict[str, Host]
    vms: tuple[Vm, ...]
    settled: tuple[tuple[Vm, str], ...] = ()


def read_plan(path: Path) -> Plan:
    """Raises UsageError, in one line with what is wrong."""
    if path.exists() and not path.is_file():
        raise UsageError(f"plan {path}: is no regular file")
    try:
        raw = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"plan {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"plan {path}: not a text in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"plan {path}: {error}") from error
    except (ValueError, RecursionError) as error:  # digits without end, brackets without end
        raise UsageError(f"plan {path}: a number or a list in it is too long to be read") from error
    try:
        return _plan(raw, path.parent)
    except ValueError as error:
        raise UsageError(f"plan {path}: {error}") from error


def parse_plan(text: str) -> Plan:
    """The same, of a text of ours. Raises ValueError."""
    return _plan(tomllib.loads(text), Path())


def _plan(raw: object, folder: Path) -> Plan:
    keys = Keys("", raw)
    title = keys.text("title", "Emptying hosts")
    limits, noise = _limits(keys.table("limits")), _noise(keys.table("draws"))
    links = [_link(Keys(f"[[link]] {at}", one)) for at, one in enumerate(keys.tables("link"), 1)]
    hosts = [_host(Keys(f"[[host]] {at}", one), folder) for at, one in enumerate(keys.tables("host"), 1)]
    vms = [_vm(Keys(f"[[vm]] {at}", one), folder) for at, one in enumerate(keys.tables("vm"), 1)]
    keys.done()
    for kind, found in (("link", links), ("host", hosts), ("vm", vms)):
        _unique(kind, (one.name for one in found))
    plan = Plan(
        title,
        limits,
        noise,
        {one.name: one for one in links},
        {one.name: one for one in hosts},
        tuple(vms),
    )
    _check_names(plan)
    return plan


def _limits(keys: Keys) -> Limits:
    downtime = keys.number("downtime", 0.001, MAX_DOWNTIME_LIMIT_MS, 300.0)
    converge = keys.choice("converge", CONVERGE, "none")
    limits = Limits(
        PolicySettings(downtime_limit_ms=downtime, downtime_max_ms=3 * downtime, converge=converge),
        keys.whole("streams_a_host", 1, 1000, 4),
        keys.number("deadline", 1e-3, MOST_SECONDS, 0.0),
        keys.number("start_seconds", 0, 3600, 0.0),
        keys.number("end_seconds", 0, 3600, 0.0),
    )
    keys.done()
    return limits


def _noise(keys: Keys) -> Noise:
    noise = Noise(
        keys.number("dirty", 0, 2, 0.2),
        keys.number("ratio", 0, 1, 0.05),
        keys.number("speed", 0, 1, 0.04),
        keys.number("link", 0, 0.3, 0.01),
    )
    keys.done()
    return noise


def _link(keys: Keys) -> Link:
    link = Link(keys.text("name"), keys.rate("rate", SMALLEST_LINK))
    keys.done()
    return link


def _host(keys: Keys, folder: Path) -> Host:
    name = keys.text("name")
    keys.where = f"host {name}"
    profile = _profile(keys.text("profile", DEFAULT_PROFILE), folder)
    host = Host(
        name,
        keys.texts("links"),
        keys.flag("empty", False),
        keys.number("cpus", 0.1, 1e5),
        keys.whole("qat", 0, 256, 0),
        keys.size("memory", 0, 0),
        profile,
        keys.optional("address"),
        keys.optional("netns"),
        keys.optional("worker"),
        _ports(keys),
    )
    if host.qat_devices and profile.qat is None:
        raise keys.wrong("qat", "needs a profile that has a QAT device, such as intel-thread")
    if not host.empty and "memory" not in keys:
        raise keys.wrong("memory", "is missing: what is free for the VMs that come")
    if host.netns is not None and host.worker is not None:
        raise keys.wrong("worker", "and netns: a host is one or the other")
    keys.done()
    return host


@functools.cache
def _profile(name: str, folder: Path) -> HostProfile:
    """By name, or by path beside the plan."""
    beside = folder / name
    return replace(profile_named(str(beside) if beside.is_file() else name), calibration=None)


def _ports(keys: Keys) -> tuple[int, int]:
    ports = keys.rows("ports")
    if ports is None:
        return DEFAULT_PORTS
    fit = len(ports) == 2 and all(type(port) is int and 1 <= port <= 65535 for port in ports)
    if not fit or ports[0] > ports[1]:
        raise keys.wrong("ports", "must be [first, last], 1 to 65535")
    return (ports[0], ports[1])


def _vm(keys: Keys, folder: Path) -> Vm:
    name = keys.text("name")
    keys.where = f"vm {name}"
    sample, curve = keys.optional("sample"), _curve(keys)
    size = keys.size("size", 1 << 20)
    dirty_rate = keys.rate("dirty_rate", 0, 0)
    vm = Vm(
        name,
        keys.text("host"),
        size,
        keys.number("zero_share", 0, 1, 0.0),
        keys.number("ratio", 1, 1000, 0.0 if sample else 2.0),
        None if sample is None else folder / sample,
        keys.optional("preset"),
        curve,
        dirty_rate,
        keys.size("working_set", PAGE_BYTES, size),
        keys.whole("priority", -1000, 1000, 0),
        keys.optional("apart"),
        keys.optional("attach"),
        _relayed(keys),
    )
    _check_vm(vm, keys)
    keys.done()
    return vm


def _check_vm(vm: Vm, keys: Keys) -> None:
    if vm.size_bytes % PAGE_BYTES:
        raise keys.wrong("size", "must be a multiple of 4K")
    if vm.sample is not None and "ratio" in keys:
        raise keys.wrong("sample", "and ratio: give one of them")
    if vm.sample is not None and not vm.sample.is_file():
        raise keys.wrong("sample", f"{vm.sample}: no such file, or no regular one")
    if sum(key in keys for key in ("preset", "dirty_curve", "dirty_rate")) > 1:
        raise keys.wrong("preset", "and dirty_curve and dirty_rate: give one of them")
    if vm.preset is not None and vm.preset not in PRESETS:
        raise keys.wrong("preset", f"{vm.preset!r} must be one of {', '.join(PRESETS)}")
    if "working_set" in keys and ("dirty_rate" not in keys or vm.working_set_bytes > vm.size_bytes):
        raise keys.wrong("working_set", "belongs to dirty_rate, and is at most the size")
    if vm.attach is not None and vm.relayed is not None:
        raise keys.wrong("attach", "and qmp: a VM is one or the other")


def _curve(keys: Keys) -> tuple[tuple[float, int], ...] | None:
    rows = keys.rows("dirty_curve")
    if rows is None:
        return None
    if not 1 <= len(rows) <= MOST_CURVE_POINTS:
        raise keys.wrong("dirty_curve", f"must have 1 to {MOST_CURVE_POINTS} points of [seconds, size]")
    points: list[tuple[float, int]] = []
    for row in rows:
        if not isinstance(row, list) or len(row) != 2:
            raise keys.wrong("dirty_curve", "must be a list of [seconds, size]")
        point = Keys(f"{keys.where}: dirty_curve", {"seconds": row[0], "size": row[1]})
        points.append((point.number("seconds", 1e-3, MOST_SECONDS), point.size("size", 0)))
    for before, after in itertools.pairwise(points):
        if before[0] >= after[0] or before[1] > after[1]:
            raise keys.wrong("dirty_curve", "must rise in time, and never fall in size")
    return tuple(points)


def _relayed(keys: Keys) -> Relayed | None:
    found = [keys.optional(key) for key in ("qmp", "socket", "incoming", "incoming_qmp")]
    if not any(found):
        return None
    if not all(found):
        raise keys.wrong("qmp", "needs socket, incoming and incoming_qmp, and they need qmp")
    return Relayed(*(str(one) for one in found))


def _unique(kind: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{kind} {name} is there twice")
        seen.add(name)


def _check_names(plan: Plan) -> None:
    for host in plan.hosts.values():
        for link in host.links:
            if link not in plan.links:
                raise ValueError(f"host {host.name}: links: there is no link {link}")
    for vm in plan.vms:
        if vm.host not in plan.hosts:
            raise ValueError(f"vm {vm.name}: host: there is no host {vm.host}")
        if not plan.hosts[vm.host].empty:
            raise ValueError(f"vm {vm.name}: host {vm.host} is not to be emptied: leave the VM out")
    if all(host.empty for host in plan.hosts.values()):
        raise ValueError("every host is to be emptied: no host can take a VM")
