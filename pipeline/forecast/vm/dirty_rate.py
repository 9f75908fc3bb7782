"""A VM's dirty curve by QEMU's own measurement, `calc-dirty-rate`, at several times."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from guestmem.page import PAGE_BYTES
from pipeline.errors import Cancelled
from pipeline.forecast.situation import CurveSamples
from pipeline.processes.signals import raise_if_cancelled
from pipeline.qemu.commands import Commands
from pipeline.qemu.monitor import MonitorError

POINTS_MS = (125, 250, 500, 1000, 2000)
SAMPLE_PAGES_A_GIB = 16384
"""The most that QEMU takes (MAX_SAMPLE_PAGE_COUNT of migration/dirtyrate.h; its default is 512): 64 MiB a GiB
are hashed before and after. Of 4096 a guest that writes 5 MiB/s changed forty in 2 s: too few."""

LOOK_SECONDS, PATIENCE_SECONDS, CANCELLED_SECONDS = 0.02, 10.0, 0.5
SPREAD = (-1.28, -0.52, 0.0, 0.52, 1.28)
"""Standard deviations: five equally likely values of what a sample leaves open."""


def curve_of_vm(monitor: Commands, size: int, notes: list[str]) -> CurveSamples:
    """By sampled pages, or by QEMU's dirty bitmap where that is exact."""
    exact = _bitmap_is_there(monitor)
    pages: list[tuple[int, ...]] = []
    for milliseconds in POINTS_MS:
        raise_if_cancelled()
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


def _bitmap_is_there(monitor: Commands) -> bool:
    """Under KVM, where it is not by a ring; elsewhere it is always 0."""
    try:
        return bool(monitor.run("query-kvm")["enabled"])
    except MonitorError:
        return False


def _measured(monitor: Commands, milliseconds: int, mode: str, notes: list[str]) -> float:
    """Distinct pages written within a time."""
    arguments: dict[str, Any] = {"calc_time": milliseconds, "calc_time_unit": "millisecond", "mode": mode}
    if mode == "page-sampling":
        arguments["sample_pages"] = SAMPLE_PAGES_A_GIB
    try:
        with _nothing_left_going(monitor, milliseconds):
            monitor.run("calc-dirty-rate", **arguments)
    except MonitorError as error:
        notes.append(f"{mode}: {error}")
        return 0.0
    with _nothing_left_going(monitor, milliseconds):
        found = _end_of(monitor, milliseconds / 1e3 + PATIENCE_SECONDS)
    if found is not None:
        return float(found.get("dirty-rate", 0)) * (1 << 20) * milliseconds / 1e3 / PAGE_BYTES
    notes.append(f"{mode}: QEMU did not finish its measurement of {milliseconds} ms")
    return 0.0


@contextlib.contextmanager
def _nothing_left_going(monitor: Commands, milliseconds: int) -> Iterator[None]:
    """A look that is cancelled leaves QEMU as it was: with nothing being measured."""
    try:
        yield
    except Cancelled:
        _end_of(monitor, milliseconds / 1e3 + CANCELLED_SECONDS)
        raise


def _end_of(monitor: Commands, seconds: float) -> dict[str, Any] | None:
    """What was measured, once it is; None for a measurement that does not end. Raises MonitorError."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        found: dict[str, Any] = monitor.run("query-dirty-rate", calc_time_unit="millisecond")
        if found["status"] == "measured":
            return found
    return None
