"""One published row, by the model that every forecast uses (`pipeline.forecast.rounds.walk`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from guestmem.page import PAGE_BYTES
from pipeline.dirty_curve import DirtyCurve
from pipeline.forecast.beside import NOTHING_BESIDE, Beside
from pipeline.forecast.cost import Cost
from pipeline.forecast.host_profile import HostProfile
from pipeline.forecast.rounds import Case, Outcome, Resources, walk
from pipeline.policy import PolicySettings

WRITES_NOTHING = (0.1, 1.0), (0, 0)
"""Seconds and pages of the dirty curve of a guest that is idle, as in all of these tables."""


@dataclass(frozen=True)
class Content:
    """What a VM's RAM held: bytes of pages that are not zero, of all."""

    ram_bytes: int
    normal_bytes: float


@dataclass(frozen=True)
class Modelled:
    """Milliseconds, and CPU in per cent of one core over them."""

    total_ms: float
    send_cpu: float
    recv_cpu: float


def cost_on(
    profile: HostProfile, method: str, channels: int, wire_share: float, *, prealloc: bool
) -> Cost | None:
    """Of a byte of normal pages; None where the profile does not say it. What of the fault costs grows with
    the number of channels shows in rows of qatzip only."""
    device = profile.qat
    if method == "qatzip":
        if device is None:
            return None
        load = device.load(channels, channels, prealloc=prealloc)
        return Cost(load.send_ns, load.recv_ns, wire_share, load.send_wait_ns, load.recv_wait_ns)
    fault = 0.0 if prealloc or device is None else device.fault_ns
    if method == "none":
        return Cost(0.0, fault, wire_share)
    speed = profile.speed(method, 1)
    return None if speed is None else Cost(speed.compress_ns, speed.decompress_ns + fault, wire_share)


def modelled(
    content: Content, cost: Cost, channels: int, link: float, beside: Beside, cpus: float
) -> Modelled:
    """A migration of an idle guest. `link` in bytes a second, 0 for no limit; `cpus` of each host."""
    pages = content.ram_bytes // PAGE_BYTES
    found = walk(
        Case(
            ram_pages=pages,
            zero_share=1 - content.normal_bytes / content.ram_bytes,
            written_zero_share=0.0,
            curve=DirtyCurve(*WRITES_NOTHING, pages),
            whole=cost,
            written=cost,
            resources=Resources(channels, channels, cpus, cpus, 0.0, link),
            sync_ms=0.0,
            policy=PolicySettings(),
            beside=beside,
        )
    )
    return _in_per_cent(found)


def _in_per_cent(found: Outcome) -> Modelled:
    seconds = found.total_ms / 1e3
    return Modelled(
        found.total_ms, found.send_cpu_seconds / seconds * 100, found.recv_cpu_seconds / seconds * 100
    )


def beside_of(method: str) -> Beside:
    """A device's CPU is that of a whole migration; the others' is what the codec takes."""
    return NOTHING_BESIDE if method == "qatzip" else Beside()


def cpus_of(profile: HostProfile) -> float:
    """Where a profile does not say how many there are, they are no limit."""
    return math.inf if profile.cpus is None else profile.cpus


def slower(*links: float) -> float:
    """The slowest of several, 0 for none."""
    return min((link for link in links if link), default=0.0)
