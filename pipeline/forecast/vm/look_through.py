"""A look at a VM that QEMU runs, through its monitor: how it writes, and what its pages hold.

`calc-dirty-rate` at several times gives a dirty curve, since a page counts once however often it is written
(QEMU qapi/migration.json). Pieces of its memory (`vm_memory`), and the same ones again some seconds later,
show what pages hold and which were written meanwhile.
"""

from __future__ import annotations

import time
from dataclasses import asdict

import numpy as np

from guestmem.page import PAGE_BYTES
from pipeline.forecast.sample import NO_PAGES, Words, normal_pages
from pipeline.forecast.seen import Seen
from pipeline.forecast.situation import CurveSamples, Guest, Host
from pipeline.forecast.vm.dirty_rate import curve_of_vm
from pipeline.forecast.vm.vcpus import Vcpus
from pipeline.forecast.vm.vm_memory import NoContent, memory_of, pieces
from pipeline.processes.cgroup import usable_cpus
from pipeline.qemu.commands import Commands
from pipeline.qemu.connect import refuse_moving


def look_through(monitor: Commands, where: str, pid: int | None) -> Seen:
    """A look by these commands; `pid` is QEMU's, where it is known. Raises HostError, MonitorError."""
    began = time.monotonic()
    notes: list[str] = []
    refuse_moving(monitor, where, "a look would disturb it")
    size = int(monitor.run("query-memory-size-summary")["base-memory"])
    facts = {
        "capabilities": monitor.capabilities(),
        "parameters": dict(monitor.run("query-migrate-parameters")),
    }
    before: dict[int, Words] = {}
    after: dict[int, Words] = {}
    why = ""
    with memory_of(monitor, size, pid) as memory:
        try:
            before = pieces(memory)
        except NoContent as error:
            why = str(error)
        vcpus = Vcpus(monitor, pid)
        curve = curve_of_vm(monitor, size, notes)
        busy = vcpus.busy()
        if before:
            after = pieces(memory)
        cost = memory.cost
    guest, whole, written = _seen(size, curve, busy, before, after)
    cpus = usable_cpus()
    return Seen(
        *(guest, Host(cpus, cpus, one_host=False), whole, written),
        facts={"look_seconds": time.monotonic() - began, "cost": asdict(cost), **facts},
        notes=(*notes, *((f"without content: {why}",) if why else ())),
        content_known=not why,
    )


def _seen(
    size: int, curve: CurveSamples, cpus: float, before: dict[int, Words], after: dict[int, Words]
) -> tuple[Guest, Words, Words]:
    """The guest's figures; normal pages of all of it, and of those that changed between two looks."""
    whole, zero_share = _joined(list(before.values()))
    changed = [after[at][(after[at] != pages).any(axis=1)] for at, pages in before.items() if at in after]
    written, written_zero_share = _joined(changed)
    pages = size // PAGE_BYTES
    return Guest(pages, zero_share, written_zero_share, curve, sync_ms=1.0, cpus=cpus), whole, written


def _joined(found: list[Words]) -> tuple[Words, float]:
    return normal_pages(np.concatenate(found)) if found else (NO_PAGES, 0.0)
