"""A real VM by its monitor: forecast, and then moved by QEMU itself."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from guestmem.ram import GuestRam
from pipeline.errors import HostError, RunFailed
from pipeline.forecast.bands import Forecast, forecast
from pipeline.forecast.by_qemu import plan_of_vm
from pipeline.forecast.sample import candidates
from pipeline.forecast.situation import Plan
from pipeline.forecast.vm.look_through import look_through
from pipeline.policy import PolicySettings
from pipeline.qemu.monitor import MonitorError
from tools.measuring.progress import say
from tools.qemu.guest.machine import GuestMachine, GuestOptions, guest_folder
from tools.qemu.peer import find_qemu

RAM_BYTES, RATE_MIB, CHANNELS = 512 << 20, 5, 2
LINKS_BYTES = (12_500_000, 40_000_000)
METHODS = (("none", None), ("zstd", 1))
DOWNTIME_LIMIT_MS, END_SECONDS = 300, 300.0


def measure_vms() -> list[dict[str, Any]]:
    """Each method over each link, with fresh QEMUs. Empty where no guest can run. Raises RunFailed."""
    try:
        guest_folder()
        find_qemu()
    except HostError as error:
        say(f"without a VM: {error}")
        return []
    found = []
    for link in LINKS_BYTES:
        for method, level in METHODS:
            row = _moved(link, method, level)
            found.append(row)
            say(f"  VM by QEMU's {method}, {link / 1e6:g} MB/s: {row['error']:+.0%}")
    return found


def _moved(link: int, method: str, level: int | None) -> dict[str, Any]:
    options = GuestOptions(RAM_BYTES, "writer", RAM_BYTES >> 21, RATE_MIB)
    with ExitStack() as stack:
        source, destination = (_machine(stack, options, incoming=incoming) for incoming in (False, True))
        source.wait_for_line(1, 300.0)
        time.sleep(5)
        try:
            foreseen = _foreseen(source, link, method, level)
            total_ms, downtime_ms = _migrate(source, destination, link, method)
        except MonitorError as error:
            raise RunFailed(f"QEMU's {method}: {error}") from error
    total = foreseen.bands["total_ms"]
    return {
        "method": method,
        "link_bytes_per_second": link,
        "forecast": foreseen.record(),
        "total_ms": total_ms,
        "downtime_ms": downtime_ms,
        "error": total.expected / total_ms - 1,
    }


def _machine(stack: ExitStack, options: GuestOptions, *, incoming: bool) -> GuestMachine:
    ram = GuestRam.create(options.size_bytes, "forecast-vm")
    stack.callback(os.close, ram.fd)
    machine = GuestMachine(ram, options, incoming=incoming)
    stack.callback(machine.stop)
    return machine


def _foreseen(source: GuestMachine, link: int, method: str, level: int | None) -> Forecast:
    seen = look_through(source.qmp, "VM", source.process.pid)
    policy = PolicySettings(downtime_limit_ms=DOWNTIME_LIMIT_MS)
    plan = plan_of_vm(Plan(CHANNELS, CHANNELS, 0, policy, qemu_limit_bytes_per_second=link), method)
    (one,) = candidates([(method, level)], seen.whole, seen.written, CHANNELS, seen.gauges)
    return forecast(seen.guest, one, replace(seen.host, one_host=True), plan)


def _migrate(source: GuestMachine, destination: GuestMachine, link: int, method: str) -> tuple[float, float]:
    """Total and downtime, as QEMU says them."""
    for machine in (source, destination):
        machine.qmp.set_capabilities({"events": True, "return-path": True, "multifd": True})
        machine.qmp.run(
            "migrate-set-parameters",
            **{"downtime-limit": DOWNTIME_LIMIT_MS, "max-bandwidth": link, "multifd-channels": CHANNELS},
            **{"multifd-compression": method},
        )
    destination.qmp.run("migrate-incoming", uri="tcp:127.0.0.1:0")
    (listening,) = destination.qmp.run("query-migrate")["socket-address"]
    source.qmp.run("migrate", uri=f"tcp:127.0.0.1:{listening['port']}")
    status = source.qmp.wait_for_migration(END_SECONDS)
    said = source.qmp.run("query-migrate")
    if status != "completed":
        raise RunFailed(f"QEMU's {method} over {link / 1e6:g} MB/s: {status}")
    return float(said["total-time"]), float(said["downtime"])
