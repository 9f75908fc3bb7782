"""A look at a VM that QEMU runs, through its monitor: how it writes, and what its pages hold.

`calc-dirty-rate` at several times gives a dirty curve, since a page counts once however often it is written
(QEMU qapi/migration.json). `pmemsave` of small pieces gives pages; the same pieces again, some seconds later,
show which of them were written meanwhile. Every call holds QEMU's lock for as long as it takes.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guestmem.page import PAGE_BYTES, WORDS_PER_PAGE
from pipeline.errors import HostError
from pipeline.forecast.sample import NO_PAGES, PACKET_PAGES, Words, normal_pages
from pipeline.forecast.situation import CurveSamples, Guest, Host
from pipeline.processes.cgroup import usable_cpus
from pipeline.progress import Progress
from tools.forecast.sources.seen import Seen, Typed
from tools.qemu.connect import monitor_at, refuse_moving
from tools.qemu.monitor import Monitor, MonitorError

POINTS_MS = (125, 250, 500, 1000, 2000)
SAMPLE_PAGES_A_GIB = 4096
"""QEMU's default is 512; each is hashed before and after."""

MOST_PIECES = 128
PIECE_BYTES = PACKET_PAGES * PAGE_BYTES
FIRST_ADDRESS, LOW_END, HIGH_BEGIN = 1 << 20, 2 << 30, 4 << 30
"""Of RAM that lies the same on all x86 machines: below 1 MiB are ROMs, and a large RAM goes on at 4 GiB."""

SPREAD = (-1.28, -0.52, 0.0, 0.52, 1.28)
"""Standard deviations: five equally likely values of what a sample leaves open."""


@dataclass
class Cost:
    """What the look cost the guest: how long its monitor's calls took, all and the longest, since those that
    read its memory hold QEMU's lock."""

    calls: int = 0
    total_ms: float = 0.0
    longest_ms: float = 0.0


@dataclass(frozen=True)
class MonitoredVm:
    """A VM by its monitor's socket."""

    path: str

    @property
    def typed(self) -> Typed:
        return Typed(is_vm=True)

    def look(self, progress: Progress) -> Seen:
        """Some 7 s at a VM. Raises HostError for one that is being migrated, or a monitor that fails."""
        progress.say("looking at the VM for some 7 s")
        try:
            with (
                monitor_at(self.path) as monitor,
                tempfile.TemporaryDirectory(prefix="ramferry-look-") as folder,
            ):
                return _look(monitor, self.path, Path(folder))
        except MonitorError as error:
            raise HostError(f"--qmp {self.path}: {error}") from error


def _look(monitor: Monitor, path: str, folder: Path) -> Seen:
    began, cost = time.monotonic(), Cost()
    refuse_moving(monitor, path, "a look would disturb it")
    size = int(monitor.run("query-memory-size-summary")["base-memory"])
    capabilities = monitor.capabilities()
    parameters = dict(monitor.run("query-migrate-parameters"))
    addresses = _addresses(size)
    before, why = _pieces(monitor, addresses, folder, cost)
    notes: list[str] = []
    curve = _curve(monitor, size, notes)
    after, _ = _pieces(monitor, addresses, folder, cost) if before else ({}, "")
    whole, zero_share = _joined(list(before.values()))
    changed = [after[at][(after[at] != pages).any(axis=1)] for at, pages in before.items() if at in after]
    written, written_zero_share = _joined(changed)
    cpus = usable_cpus()
    return Seen(
        Guest(size // PAGE_BYTES, zero_share, written_zero_share, curve, sync_ms=1.0),
        Host(cpus, cpus, one_host=False),
        *(whole, written),
        facts={
            "look_seconds": time.monotonic() - began,
            "cost": asdict(cost),
            "capabilities": capabilities,
            "parameters": parameters,
        },
        notes=(*notes, *((f"without content: {why}",) if why else ())),
        content_known=not why,
    )


def _joined(pieces: list[Words]) -> tuple[Words, float]:
    return normal_pages(np.concatenate(pieces)) if pieces else (NO_PAGES, 0.0)


# -------------------------------------------------------------------- pages


def _addresses(size: int) -> list[int]:
    """Where to read: spread over RAM, whole packets, the same ones each time."""
    chance = np.random.default_rng(1)
    low = range(FIRST_ADDRESS, min(size, LOW_END) - PIECE_BYTES, PIECE_BYTES)
    high = range(HIGH_BEGIN, HIGH_BEGIN + max(0, size - LOW_END) - PIECE_BYTES, PIECE_BYTES)
    places = [*low, *high]
    count = min(len(places), MOST_PIECES)
    return [places[index] for index in sorted(chance.choice(len(places), count, replace=False).tolist())]


def _pieces(monitor: Monitor, addresses: list[int], folder: Path, cost: Cost) -> tuple[dict[int, Words], str]:
    """Pages by address, and why there are none where there are none. The file is 0600, in a folder of this
    user's, and is emptied at once."""
    found: dict[int, Words] = {}
    why = ""
    file = folder / "piece"
    file.touch(0o600)
    for address in addresses:
        began = time.monotonic()
        try:
            monitor.run("pmemsave", val=address, size=PIECE_BYTES, filename=str(file))
        except MonitorError as error:
            why = str(error)
            if "permission" in why.lower() or "could not open" in why.lower():
                return {}, f"QEMU may not write to {folder} ({why}): another user, AppArmor or SELinux"
            continue
        took = (time.monotonic() - began) * 1e3
        cost.calls += 1
        cost.total_ms += took
        cost.longest_ms = max(cost.longest_ms, took)
        data = file.read_bytes()
        os.truncate(file, 0)
        if len(data) == PIECE_BYTES:
            found[address] = np.frombuffer(data, np.uint64).reshape(-1, WORDS_PER_PAGE)
    return found, "" if found else why


# -------------------------------------------------------------------- the curve


def _curve(monitor: Monitor, size: int, notes: list[str]) -> CurveSamples:
    """By sampled pages, or by QEMU's dirty bitmap where that is exact."""
    exact = _bitmap_is_there(monitor)
    pages: list[tuple[int, ...]] = []
    for milliseconds in POINTS_MS:
        sampled = _measured(monitor, milliseconds, "page-sampling", notes)
        by_bitmap = _measured(monitor, milliseconds, "dirty-bitmap", notes) if exact else 0.0
        if exact and not by_bitmap and sampled:
            notes.append("QEMU's dirty bitmap says 0 where sampled pages changed: not believed")
            exact = False
        if exact:
            pages.append((round(by_bitmap),))
            continue
        looked = min(SAMPLE_PAGES_A_GIB * size / (1 << 30), size / PAGE_BYTES)
        share = min(1.0, sampled * PAGE_BYTES / size)
        sigma = (max(share, 1 / looked) * (1 - share) / looked) ** 0.5 * size / PAGE_BYTES
        pages.append(tuple(max(0, round(sampled + sigma * step)) for step in SPREAD))
    return CurveSamples(tuple(at / 1e3 for at in POINTS_MS), tuple(pages))


def _bitmap_is_there(monitor: Monitor) -> bool:
    """Under KVM, where it is not by a ring; elsewhere it is always 0."""
    try:
        return bool(monitor.run("query-kvm")["enabled"])
    except MonitorError:
        return False


def _measured(monitor: Monitor, milliseconds: int, mode: str, notes: list[str]) -> float:
    """Distinct pages written within a time."""
    arguments: dict[str, Any] = {"calc_time": milliseconds, "calc_time_unit": "millisecond", "mode": mode}
    if mode == "page-sampling":
        arguments["sample_pages"] = SAMPLE_PAGES_A_GIB
    try:
        monitor.run("calc-dirty-rate", **arguments)
    except MonitorError as error:
        notes.append(f"{mode}: {error}")
        return 0.0
    until = time.monotonic() + milliseconds / 1e3 + 10
    while time.monotonic() < until:
        time.sleep(0.02)
        found = monitor.run("query-dirty-rate", calc_time_unit="millisecond")
        if found["status"] == "measured":
            return float(found.get("dirty-rate", 0)) * (1 << 20) * milliseconds / 1e3 / PAGE_BYTES
    notes.append(f"{mode}: QEMU did not finish its measurement of {milliseconds} ms")
    return 0.0
