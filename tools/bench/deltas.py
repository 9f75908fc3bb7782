"""Migrations with deltas and without, in turn: guests of several kinds, and the trace of a real one.

Beside them QEMU's xbzrle (without multifd, as it has to be) on the same kind of real guest and link.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.errors import HostError
from pipeline.progress import open_progress
from pipeline.report.markdown import table
from tools.bench.network import cable
from tools.bench.relay import NotConverged, Way, moved
from tools.bench.request import BenchRequest
from tools.measuring.progress import say
from tools.measuring.trial import run_ours
from tools.qemu.guest.machine import guest_folder
from tools.qemu.peer import find_qemu
from tools.qemu.trace import Request as TraceRequest
from tools.qemu.trace import record

METHOD = "zstd"
TRACE_BYTES = 512 << 20
TRACE_LINKS = (("6M", 50), ("24M", 200))
"""Ours, and the cable of QEMU's that carries as much, in Mbit/s."""

QEMU_SECONDS = 180.0
STOPS, INTERVAL_SECONDS, SETTLE_SECONDS, WRITER_MIB_A_SECOND = 40, 0.5, 20.0, 5
TIMEOUT_SECONDS = "180"


@dataclass(frozen=True)
class Case:
    """A guest and a link, such that some rounds are needed."""

    name: str
    options: tuple[str, ...]
    link: str


PRESETS = (
    Case("database", ("--preset", "database"), "100M"),
    Case("database, over a link that is too slow", ("--preset", "database"), "70M"),
    Case("idle-desktop", ("--preset", "idle-desktop"), "16M"),
    Case("build", ("--preset", "build"), "120M"),
    Case("memory-stress", ("--preset", "memory-stress", "--downtime-limit", "60000"), "400M"),
)
"""memory-stress never converges: a limit of a minute has it end after round 1 and what that left."""

WAYS = (
    Way("QEMU, no multifd", channels=0, work="busy", timeout_seconds=QEMU_SECONDS),
    Way("QEMU xbzrle", channels=0, work="busy", xbzrle=True, timeout_seconds=QEMU_SECONDS),
)


def measure(request: BenchRequest) -> dict[str, Any]:
    """Every case off and on, in turn. Raises FerryError."""
    rows: dict[str, list[dict[str, Any]]] = {}
    qemu: dict[str, list[dict[str, float] | None]] = {}
    with tempfile.TemporaryDirectory(prefix="ramferry-bench-") as folder:
        cases = list(_cases(request, Path(folder)))
        for turn in range(1, request.repeat + 1):
            say(f"turn {turn} of {request.repeat}")
            for case in cases:
                for delta in ("0", "auto"):
                    found = _run(request, case, delta)
                    rows.setdefault(f"{case.name}|{delta}", []).append(found)
                    say(f"  {case.name}, --delta {delta}: {found['status']}, {found['total_ms']:.0f} ms")
            if request.qemu and len(cases) > len(PRESETS):
                _measure_qemu(qemu)
    return {"rows": rows, "qemu": qemu, "links": {case.name: case.link for case in cases}}


def _cases(request: BenchRequest, folder: Path) -> Iterator[Case]:
    """The presets, and a real guest's trace where one can be recorded."""
    ram = tuple(request.ram_arguments())
    for case in PRESETS:
        yield Case(case.name, (*ram, *case.options), case.link)
    try:
        guest_folder()
        find_qemu()
    except HostError as error:
        say(f"without a real guest: {error}")
        return
    path = folder / "guest.trace"
    asked = TraceRequest(
        path, TRACE_BYTES, STOPS, INTERVAL_SECONDS, SETTLE_SECONDS, WRITER_MIB_A_SECOND, quiet=True
    )
    say("recording the trace of a real guest")
    record(asked, open_progress(quiet=True)).save(path)
    for link, _ in TRACE_LINKS:
        yield Case(f"a real guest's trace over {link}/s", ("--preset", f"trace:{path}"), link)


def _run(request: BenchRequest, case: Case, delta: str) -> dict[str, Any]:
    arguments = [
        *(*case.options, "--method", METHOD, "--channels", str(request.channels), "--prealloc"),
        *("--max-bandwidth", case.link, "--delta", delta, "--timeout", TIMEOUT_SECONDS),
    ]
    result = run_ours(arguments, may_not_converge=True).result
    rounds = result["rounds"]
    return {
        "status": result["status"],
        "total_ms": result["time"]["total_ms"],
        "rounds": len(rounds),
        "wire_bytes": result["traffic"]["wire_bytes"],
        "later_pages": sum(one["normal_pages"] for one in rounds[1:]),
        "later_wire_bytes": sum(one["wire_bytes"] for one in rounds[1:]),
        "cpu_seconds": result["send"]["cpu_seconds"],
        "delta": result["delta"],
    }


def _measure_qemu(rows: dict[str, list[dict[str, float] | None]]) -> None:
    """Each way over each link; None for a run that did not converge."""
    with cable() as wire:
        for mbit, way in ((mbit, way) for _, mbit in TRACE_LINKS for way in WAYS):
            name = f"{way.name} over {mbit} Mbit/s"
            found = rows.setdefault(name, [])
            try:
                took = moved(wire, mbit, way, TRACE_BYTES)
            except NotConverged as error:
                found.append(None)
                say(f"  over {mbit} Mbit/s {error}")
            else:
                found.append(took)
                say(f"  {name}: {took['total_ms']:.0f} ms")


def tables(document: dict[str, Any]) -> str:
    """One row a guest: what pages with a base took without and with, and what it came to."""
    head = ["guest", "link", "bytes of pages with a base, off / on", "pages with a base", "total s, off / on"]
    found = [[*head, "rounds", "wire MB", "send CPU s", "kept MB"]]
    for name, link in document["links"].items():
        off, on = (document["rows"][f"{name}|{delta}"] for delta in ("0", "auto"))
        found.append([name, f"{link}/s", *_gain(on), *(_both(off, on, what) for what in SHOWN), _kept(on)])
    lines = [f"- {name}: {_qemu(rows)}" for name, rows in document["qemu"].items()]
    beside = ["QEMU, a live guest of the trace's kind:", *lines] if lines else []
    return "\n\n".join([table(found), "\n".join(beside)]).strip()


SHOWN = ("total_ms", "rounds", "wire_bytes", "cpu_seconds")


def _gain(on: list[dict[str, Any]]) -> list[str]:
    """How many times fewer bytes, and how many pages of those that came back had a base."""
    deltas = [one["delta"] for one in on if one["delta"] and one["delta"]["based_bytes"]]
    if not deltas:
        why = on[0]["delta"]["stopped"] if on[0]["delta"] else "off"
        return [f"none: {why or 'no page came back'}", "0 %"]
    times = median((one["saved_bytes"] + one["based_bytes"]) / one["based_bytes"] for one in deltas)
    share = median(one["based_pages"] / max(1, one["based_pages"] + one["missed_pages"]) for one in deltas)
    return [f"{times:.1f} x", f"{share:.0%}"]


def _both(off: list[dict[str, Any]], on: list[dict[str, Any]], what: str) -> str:
    return " / ".join(_one(rows, what) for rows in (off, on))


def _one(rows: list[dict[str, Any]], what: str) -> str:
    values = [one[what] for one in rows if one[what] is not None]
    if what == "total_ms" and any(one["status"] != "completed" for one in rows):
        return "does not converge"
    if not values:
        return "-"
    middle = median(values)
    shown = {"total_ms": f"{middle / 1e3:.2f}", "wire_bytes": f"{middle / 1e6:.0f}", "rounds": f"{middle:g}"}
    return shown.get(what, f"{middle:.2f}")


def _kept(on: list[dict[str, Any]]) -> str:
    return f"{max((one['delta'] or {}).get('memory_bytes', 0) for one in on) / 1e6:.0f}"


def _qemu(found: list[dict[str, float] | None]) -> str:
    rows = [one for one in found if one is not None]
    if len(rows) < len(found):
        return f"does not converge in {QEMU_SECONDS:.0f} s ({len(found) - len(rows)} of {len(found)} runs)"
    total, moved_bytes = (median(one[name] for one in rows) for name in ("total_ms", "transferred_bytes"))
    rounds = median(one["rounds"] for one in rows)
    return f"{total / 1e3:.2f} s, {moved_bytes / 1e6:.0f} MB, {rounds:g} rounds"
