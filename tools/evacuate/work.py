"""What moving a VM by a method takes: the forecast's case, and what it asks of what is shared."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np

from guestmem.page import PAGE_BYTES
from pipeline.codecs import METHODS
from pipeline.dirty_curve import DirtyCurve
from pipeline.errors import UsageError
from pipeline.forecast.beside import NOTHING_BESIDE, Beside
from pipeline.forecast.cost import Cost
from pipeline.forecast.host_profile import HostProfile
from pipeline.forecast.rounds import Case, Resources, Work, both_full, walk
from pipeline.forecast.sample import candidates, normal_pages
from pipeline.options import MAX_WORKERS
from tools.evacuate.fabric import Fabric
from tools.evacuate.plan_file import Host, Plan, Vm
from tools.evacuate.writing import curve_of

CHANNELS = (1, 2, 4, 8, 16)
LESS_THAN_ZSTD = {"zlib": 0.92, "isal": 0.92, "lz4": 0.58}
"""What a method saves beside zstd, as (ratio - 1) shares: 2.743 and 2.101 beside 2.896 on Silesia (README of
zstd 1.5.7); isal is a deflate as zlib is."""

HEADER_SHARE, ZERO_PAGE_BYTES = 1 / 512, 8
"""Wire bytes beside payloads: a page number a page."""

SYNC_MS_A_GIB = 1.0
"""To fetch the dirty log (userfaultfd and PAGEMAP_SCAN: 1 to 12 ms a GiB)."""

SAMPLE_BYTES = 96 << 20

SHORTEST_SECONDS = 1e-9
MOST_REWRITTEN = 0.9
"""A first round that leaves more than this share of itself has no end that could be foreseen."""


@dataclass(frozen=True)
class Option:
    """A method at a level with so many channels, from one host to another; `qat_share` is what of a normal
    byte the devices see."""

    method: str
    level: int | None
    channels: int
    cost: Cost
    beside: Beside
    qat_share: float

    @property
    def name(self) -> str:
        return self.method if self.level is None else f"{self.method} {self.level}"


@dataclass(frozen=True)
class Job:
    """A VM on its way: where to, how, and the case that the model walks through. `alone_seconds` and
    `alone_wire_bytes` are with its path to itself; `path` are links, `shared` also CPUs and devices."""

    vm: Vm
    source: Host
    destination: Host
    option: Option
    case: Case
    path: tuple[int, ...]
    shared: tuple[int, ...]
    alone_seconds: float
    alone_wire_bytes: float
    alone_cpu_seconds: float
    converges: bool


@dataclass(frozen=True)
class Demand:
    """Of a round: bytes on the wire, the most of them a second that it manages where nobody is beside it, and
    what it uses of each shared resource a wire byte."""

    wire_bytes: float
    most_bytes_per_second: float
    uses: tuple[tuple[int, float], ...]

    def limited(self, bytes_per_second: float) -> Demand:
        """With a limit of its own."""
        return replace(self, most_bytes_per_second=min(self.most_bytes_per_second, bytes_per_second))


def seconds_about(curve: DirtyCurve, work: Work, wire_bytes: float, rate: float) -> float:
    """How long all rounds take about, of which this is the first: each as its share of what it leaves."""
    first = wire_bytes / rate
    more = curve.pages_after(first) * PAGE_BYTES / max(work.normal_bytes, PAGE_BYTES)
    return first * (1 + more / (1 - more)) if more < MOST_REWRITTEN else math.inf


def demand_of(job: Job, work: Work, fabric: Fabric, scanned_bytes: float) -> Demand:
    """A round without normal pages still says which pages are zero."""
    wire = max(work.wire_bytes, scanned_bytes / PAGE_BYTES * ZERO_PAGE_BYTES, 1.0)
    uses = [(link, 1.0) for link in job.path]
    uses += [
        (fabric.cpu[job.source.name], work.send_seconds / wire),
        (fabric.cpu[job.destination.name], work.recv_seconds / wire),
    ]
    if job.option.qat_share:
        share = work.normal_bytes / wire
        uses += [(fabric.qat[host.name], share) for host in (job.source, job.destination)]
    uses = [(one, amount) for one, amount in uses if amount > 0]
    others = uses[len(job.path) :]
    busy = max(work.held_seconds, *(wire * amount / fabric.capacity[one] for one, amount in others), 0.0)
    link = job.case.resources.link_bytes_per_second
    seconds = max(both_full(busy, wire / link if link else 0.0), SHORTEST_SECONDS)
    return Demand(wire, wire / seconds, tuple(uses))


def options_of(vm: Vm, source: Host, destination: Host) -> tuple[Option, ...]:
    """Every method that both hosts have a speed for, with every number of channels that their CPUs carry."""
    content = _content(vm)
    return _options(content, source.profile, destination.profile, _size_of(source), _size_of(destination))


def _size_of(host: Host) -> tuple[float, int]:
    return host.cpus, host.qat_devices


@dataclass(frozen=True)
class _Content:
    """Payload over plain bytes, by method; `zero_share` None is the plan's."""

    shares: tuple[tuple[str, float], ...]
    zero_share: float | None = None


def _content(vm: Vm) -> _Content:
    if vm.sample is not None:
        return _sampled(str(vm.sample))
    return _of_ratio(vm.ratio)


@functools.lru_cache(4096)
def _of_ratio(ratio: float) -> _Content:
    saved = ratio - 1
    return _Content(tuple((name, 1 / (1 + saved * LESS_THAN_ZSTD.get(name, 1.0))) for name in METHODS))


@functools.lru_cache(64)
def _sampled(path: str) -> _Content:
    """A raw image's first pages, compressed here. Raises UsageError."""
    try:
        with open(path, "rb") as file:
            data = file.read(SAMPLE_BYTES)
    except OSError as error:
        raise UsageError(f"sample {path}: {error.strerror}") from error
    words = np.frombuffer(data[: len(data) // PAGE_BYTES * PAGE_BYTES], np.uint64).reshape(-1, 512)
    if not len(words):
        raise UsageError(f"sample {path}: less than a page")
    normal, zero_share = normal_pages(words)
    if not len(normal):
        return _Content(tuple((name, 1.0) for name in METHODS), zero_share)
    asked = [
        (name, 1) for name in METHODS if name not in ("none", "qatzip") and not METHODS[name].unavailable()
    ]
    shares = {}
    for one in candidates(asked, normal, normal[:0], 1):
        shares[one.method] = float(one.whole.payload_bytes.sum() / one.whole.plain_bytes.sum())
    shares["qatzip"] = shares.get("zlib", 1.0)
    return _Content(tuple(shares.items()), zero_share)


@functools.lru_cache(65536)
def _options(
    content: _Content,
    source: HostProfile,
    destination: HostProfile,
    at_source: tuple[float, int],
    at_destination: tuple[float, int],
) -> tuple[Option, ...]:
    shares = dict(content.shares)
    most = max(1.0, min(at_source[0], at_destination[0], MAX_WORKERS))
    found = []
    for channels in (one for one in CHANNELS if one <= most):
        found.append(Option("none", None, channels, Cost(0.0, 0.0, 1.0 + HEADER_SHARE), Beside(), 0.0))
        for speed in source.codecs:
            there = destination.speed(speed.method, speed.level)
            if there is None or speed.method not in shares:
                continue
            wire = min(1.0, shares[speed.method]) + HEADER_SHARE
            cost = Cost(speed.compress_ns, there.decompress_ns, wire)
            found.append(Option(speed.method, speed.level, channels, cost, Beside(), 0.0))
        qat = _on_qat(shares, source, destination, at_source[1], at_destination[1], channels)
        found += [] if qat is None else [qat]
    return tuple(found)


def _on_qat(
    shares: dict[str, float],
    source: HostProfile,
    destination: HostProfile,
    devices: int,
    devices_there: int,
    channels: int,
) -> Option | None:
    if not devices or not devices_there or source.qat is None or destination.qat is None:
        return None
    here = replace(source.qat, devices=devices).load(channels, channels, prealloc=True)
    there = replace(destination.qat, devices=devices_there).load(channels, channels, prealloc=True)
    wire = min(1.0, shares["zlib"] * source.qat.payload_over_zlib) + HEADER_SHARE
    cost = Cost(here.send_ns, there.recv_ns, wire, here.send_wait_ns, there.recv_wait_ns)
    return Option("qatzip", 1, channels, cost, NOTHING_BESIDE, 1.0)


def case_of(plan: Plan, vm: Vm, source: Host, destination: Host, option: Option, rate: float) -> Case:
    """Over a link of `rate` bytes a second, 0 for none that limits."""
    zero = vm.zero_share
    if vm.sample is not None:
        zero = _sampled(str(vm.sample)).zero_share or 0.0
    resources = Resources(option.channels, option.channels, source.cpus, destination.cpus, 0.0, rate)
    curve: DirtyCurve = curve_of(vm)
    sync_ms = SYNC_MS_A_GIB * vm.size_bytes / (1 << 30)
    return Case(
        *(vm.pages, zero, 0.0, curve, option.cost, option.cost, resources, sync_ms, plan.limits.policy),
        option.beside,
    )


def job_of(plan: Plan, fabric: Fabric, vm: Vm, destination: Host, option: Option) -> Job:
    """With what the forecast's model says of it alone."""
    source = plan.hosts[vm.host]
    path = fabric.path(source, destination)
    case = case_of(plan, vm, source, destination, option, fabric.rate(path))
    alone = walk(case)
    shared = (*path, fabric.cpu[source.name], fabric.cpu[destination.name])
    if option.qat_share:
        shared = (*shared, fabric.qat[source.name], fabric.qat[destination.name])
    return Job(
        *(vm, source, destination, option, case, path, shared),
        alone.total_ms / 1e3,
        alone.wire_bytes,
        alone.send_cpu_seconds + alone.recv_cpu_seconds,
        alone.converged,
    )
