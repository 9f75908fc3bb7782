"""A real VM's migration through two relays beside QEMU's own, over links of several speeds.

The two QEMUs and the two relays are in two network namespaces with a cable between them. The blackout is
from the source's event STOP to the destination's RESUME, by QEMU's own time stamps.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from guestmem.ram import GuestRam
from pipeline.errors import HostError, RunFailed
from pipeline.processes.command import start_command
from pipeline.processes.usage import cpu_seconds_of
from pipeline.qemu.monitor import MonitorError, seconds_of
from pipeline.report.markdown import table
from tools.bench.network import DESTINATION_ADDRESS, PORT, Cable, cable
from tools.bench.page_requests import trace_options, waits_ms
from tools.bench.request import BenchRequest
from tools.measuring.progress import say
from tools.measuring.spread import Spread
from tools.measuring.trial import command_of
from tools.qemu.guest.machine import GuestMachine, GuestOptions

LINKS_MBIT = (100, 1000, 2500, 0)
WRITER_SHARE, RATE_MIB, HOT_RATE_MIB = 0.5, 5, 33
"""Of the guest's RAM, in which a program writes text, so many MiB a second."""

BUSY_PART = 16
"""A busy guest's writer has such a part of RAM."""

DOWNTIME_LIMIT_MS = 300
TIMEOUT_SECONDS, HOT_TIMEOUT_SECONDS = 600.0, 180.0
POSTCOPY_AFTER_SECONDS = 1.0
LIMIT_BYTES_PER_SECOND = 10**10


class NotConverged(RunFailed):
    """A way that did not end in time."""


@dataclass(frozen=True)
class Way:
    """How the VM is moved: `relay` names a method of the relay; `qemu` one of QEMU's multifd."""

    name: str
    qemu: str = "none"
    relay: str | None = None
    channels: int = 2
    postcopy: bool = False
    xbzrle: bool = False
    work: str = "writer"
    rate_mib: int = RATE_MIB
    timeout_seconds: float = TIMEOUT_SECONDS


WAYS = (
    Way("QEMU none"),
    Way("QEMU zstd", "zstd"),
    Way("QEMU zlib", "zlib"),
    Way("relay auto", relay="auto"),
    Way("relay zstd", relay="zstd"),
    Way("QEMU, no multifd", channels=0),
    Way("relay auto, no multifd", relay="auto", channels=0),
)

HOT: dict[str, Any] = {"rate_mib": HOT_RATE_MIB, "timeout_seconds": HOT_TIMEOUT_SECONDS}
SLOW_MBIT = 100
SLOW_WAYS = (
    Way("QEMU postcopy", channels=0, postcopy=True),
    Way("relay auto, postcopy", relay="auto", channels=0, postcopy=True),
    Way(f"QEMU zstd, {HOT_RATE_MIB} MiB/s", "zstd", **HOT),
    Way(f"relay auto, {HOT_RATE_MIB} MiB/s", relay="auto", **HOT),
)
"""Over the slowest link only: postcopy after one round, and a guest that QEMU's zstd cannot follow."""


def measure(request: BenchRequest) -> dict[str, Any]:
    """Every way over every link, in turn. Raises FerryError."""
    rows: dict[str, list[dict[str, float]]] = {}
    stuck: dict[str, int] = {}
    with cable() as wire:
        for turn in range(1, request.repeat + 1):
            say(f"turn {turn} of {request.repeat}")
            for mbit in LINKS_MBIT:
                for way in (*WAYS, *(SLOW_WAYS if mbit == SLOW_MBIT else ())):
                    try:
                        found = moved(wire, mbit, way, request.ram.size_bytes)
                    except NotConverged as error:
                        say(f"  {mbit} {error}")
                        stuck[f"{mbit}|{way.name}"] = stuck.get(f"{mbit}|{way.name}", 0) + 1
                        continue
                    say(
                        f"  {mbit or 'no limit'} {way.name}: {found['total_ms']:.0f} ms, blackout "
                        f"{found['blackout_ms']:.0f} ms, CPU {found['cpu_seconds']:.2f} s"
                    )
                    rows.setdefault(f"{mbit}|{way.name}", []).append(found)
    return {"rows": rows, "did_not_converge": stuck, "size_bytes": request.ram.size_bytes}


def moved(wire: Cable, mbit: int, way: Way, size_bytes: int) -> dict[str, float]:
    """A live guest, moved this way over so fast a link. Raises NotConverged, FerryError."""
    if mbit:
        wire.speed(mbit)
    else:
        wire.no_limit()
    written = int(size_bytes * WRITER_SHARE) if way.work == "writer" else size_bytes // BUSY_PART
    options = GuestOptions(size_bytes, way.work, written >> 20, way.rate_mib)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ramferry-bench-")))
        start = partial(_machine, stack, options)
        log = folder / "trace"
        source = start(wire.source, incoming=False)
        destination = start(wire.destination, incoming=True, more=trace_options(log) if way.postcopy else ())
        told = source.wait_for_line(1, 300.0)
        incoming, outgoing = f"tcp:{DESTINATION_ADDRESS}:{PORT}", f"tcp:{DESTINATION_ADDRESS}:{PORT}"
        relays: list[subprocess.Popen[Any]] = []
        if way.relay is not None:
            incoming, outgoing = f"unix:{folder}/in.sock", f"unix:{folder}/out.sock"
            relays = stack.enter_context(_relays(wire, way.relay, incoming, outgoing))
        try:
            found = _migrate(source, destination, way, incoming, outgoing, relays, told.count, size_bytes)
            waits = sorted(waits_ms(log.read_text())) if way.postcopy else []
            if waits:
                found["wait_median_ms"] = waits[len(waits) // 2]
                found["wait_p99_ms"] = waits[len(waits) * 99 // 100]
                found["waits"] = float(len(waits))
            return found
        except MonitorError as error:
            raise RunFailed(f"{way.name}: QEMU: {error}") from error


def _machine(
    stack: ExitStack,
    options: GuestOptions,
    prefix: tuple[str, ...],
    *,
    incoming: bool,
    more: tuple[str, ...] = (),
) -> GuestMachine:
    ram = GuestRam.create(options.size_bytes, "relay-bench")
    stack.callback(os.close, ram.fd)
    machine = GuestMachine(ram, options, incoming=incoming, prefix=prefix, more=more)
    stack.callback(machine.stop)
    return machine


@contextmanager
def _relays(wire: Cable, method: str, incoming: str, outgoing: str) -> Iterator[list[subprocess.Popen[Any]]]:
    address = f"{DESTINATION_ADDRESS}:{PORT + 1}"
    commands = (
        (wire.destination, ["--accept", address, "--deliver", incoming]),
        (wire.source, ["--listen", outgoing, "--to", address, "--method", method]),
    )
    started = [
        start_command(
            [*prefix, *command_of("pipeline.relay", *arguments, "--insecure", "--quiet")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for prefix, arguments in commands
    ]
    try:
        until = time.monotonic() + 20
        while not Path(outgoing.removeprefix("unix:")).exists():
            if time.monotonic() > until or any(process.poll() is not None for process in started):
                raise HostError("the relays do not start")
            time.sleep(0.02)
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def _migrate(
    source: GuestMachine,
    destination: GuestMachine,
    way: Way,
    incoming: str,
    outgoing: str,
    relays: list[subprocess.Popen[Any]],
    count: int,
    source_bytes: int,
) -> dict[str, float]:
    capabilities = {"events": True, "return-path": True, "multifd": way.channels > 0}
    if way.xbzrle:
        capabilities["xbzrle"] = True
    if way.postcopy:
        capabilities |= {"postcopy-ram": True, "postcopy-preempt": True}
    parameters: dict[str, Any] = {
        "downtime-limit": DOWNTIME_LIMIT_MS,
        "max-bandwidth": LIMIT_BYTES_PER_SECOND,
    }
    if way.xbzrle:
        parameters["xbzrle-cache-size"] = source_bytes // 2
    if way.channels:
        parameters |= {"multifd-channels": way.channels, "multifd-compression": way.qemu}
    for machine in (source, destination):
        machine.qmp.set_capabilities(capabilities)
        machine.qmp.run("migrate-set-parameters", **parameters)
        machine.qmp.events()
    pids = [source.process.pid, destination.process.pid, *(process.pid for process in relays)]
    before = [_cpu_seconds(pid) for pid in pids]
    destination.qmp.run("migrate-incoming", uri=incoming)
    source.qmp.run("migrate", uri=outgoing)
    began = time.monotonic()
    stopped = resumed = 0.0
    to_postcopy = way.postcopy
    while not (stopped and resumed and _is_over(source, way)):
        if to_postcopy and time.monotonic() - began > POSTCOPY_AFTER_SECONDS:
            source.qmp.run("migrate-start-postcopy")
            to_postcopy = False
        for machine in (source, destination):
            for event in machine.qmp.events():
                at = seconds_of(event)
                if event["event"] == "STOP" and machine is source:
                    stopped = at
                elif event["event"] == "RESUME" and machine is destination:
                    resumed = at
                elif event["event"] == "MIGRATION" and event["data"].get("status") == "failed":
                    raise RunFailed(f"{way.name}: the migration failed")
        if time.monotonic() - began > way.timeout_seconds:
            raise NotConverged(f"{way.name}: does not converge in {way.timeout_seconds:.0f} s")
        time.sleep(0.01)
    total = time.monotonic() - began
    used = sum(_cpu_seconds(pid) for pid in pids) - sum(before)
    said = _end(source)
    after = destination.wait_for_line(count, 60.0)
    if after.bad:
        raise RunFailed(f"{way.name}: the guest found {after.bad} wrong pages")
    return {
        "total_ms": total * 1e3,
        "blackout_ms": (resumed - stopped) * 1e3,
        "said_downtime_ms": float(said.get("downtime", 0)),
        "rounds": float(said.get("ram", {}).get("dirty-sync-count", 0)),
        "transferred_bytes": float(said.get("ram", {}).get("transferred", 0)),
        "cpu_seconds": used,
    }


def _is_over(source: GuestMachine, way: Way) -> bool:
    """After the switchover of a postcopy most of its pages are still to come."""
    return not way.postcopy or source.qmp.run("query-migrate").get("status") == "completed"


def _end(source: GuestMachine) -> dict[str, Any]:
    until = time.monotonic() + 30
    while True:
        said: dict[str, Any] = source.qmp.run("query-migrate")
        if said.get("status") == "completed" or time.monotonic() > until:
            return said
        time.sleep(0.02)


def _cpu_seconds(pid: int) -> float:
    """Of a process that may be gone."""
    try:
        return cpu_seconds_of(pid)
    except OSError:
        return 0.0


def tables(document: dict[str, Any]) -> str:
    """One row a link and way."""
    table_rows = [["link", "way", "total ms", "blackout ms", "QEMU says ms", "rounds", "CPU s of all"]]
    for key, found in document["rows"].items():
        mbit, name = key.split("|")
        link = "no limit" if mbit == "0" else f"{mbit} Mbit/s"
        fields = ("total_ms", "blackout_ms", "said_downtime_ms", "rounds")
        shown = [_spread(found, field).show() for field in fields]
        table_rows.append([link, name, *shown, f"{_spread(found, 'cpu_seconds').median:.2f}"])
    for key, count in document["did_not_converge"].items():
        mbit, name = key.split("|")
        table_rows.append([f"{mbit} Mbit/s", name, f"does not converge ({count} of {count})", *[""] * 4])
    waits = [
        f"{key.split('|')[1]}: a page asked for took "
        f"{_spread(found, 'wait_median_ms').median:.1f} ms in the median, "
        f"{_spread(found, 'wait_p99_ms').median:.1f} ms at the 99th percentile "
        f"({_spread(found, 'waits').median:.0f} pages)."
        for key, found in document["rows"].items()
        if "wait_median_ms" in found[0]
    ]
    size = document["size_bytes"] >> 20
    return (
        f"{table(table_rows)}\n\n"
        f"A live Linux guest of {size} MiB, half of it written at {RATE_MIB} MiB a second\n"
        f"(pages of this Python's files), downtime limit {DOWNTIME_LIMIT_MS} ms."
        + "".join(f"\n\n{line}" for line in waits)
    )


def _spread(found: list[dict[str, float]], field: str) -> Spread:
    return Spread(tuple(one[field] for one in found))
