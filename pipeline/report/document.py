"""The result: one JSON document a run, and the table made from it.

The columns of the table are those of QEMU's `docs/devel/migration/qatzip-compression.rst`, so
that a run can be held against a published one. QEMU prints the pages per second of its last
100 ms window; here the mean stands in the table and the peak beside it in the document.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import zlib
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from guestmem.segment import PAGE_BYTES
from guestmem.units import show_size
from pipeline.cli.arguments import AUTO
from pipeline.codecs import zstd
from pipeline.errors import RunFailed
from pipeline.options import Options
from pipeline.packets.counters import Count
from pipeline.policy import Decision, Verdict
from pipeline.processes.memory import memory_figure
from pipeline.processes.usage import SideFigures
from pipeline.report.markdown import table
from pipeline.report.metrics import Metrics
from qat.host import device_records

SCHEMA_VERSION = 1
LIBRARIES = ("numpy", "cffi", "zstandard", "posix_ipc", "isal", "rich")

Result = dict[str, Any]


def build_result(
    options: Options, metrics: Metrics, command: list[str], status: str, error: str | None
) -> Result:
    """The document of DESIGN part 7.

    `guest_bytes` are the bytes of normal pages before compression: zero pages never travel, so
    they are in no byte count and in no ratio. `wire_bytes` are packet headers, page numbers and
    payload. `compression_ratio` is the one over the other, null when nothing normal travelled.
    `cpu_percent` is CPU seconds over `total_ms`: 200 is two full cores; the guest is in neither
    side. `simulated` is true where a device was modelled and not used.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "status": status,
        "error": error,
        "command": command,
        "options": {
            **options.record(),
            "size_bytes": metrics.size_bytes or (options.guest.size_bytes if options.guest else None),
            "dirty_log": metrics.dirty_log or options.dirty_log,
        },
        "host": host_record(),
        "time": {
            "setup_ms": metrics.setup_ms,
            "prealloc_ms": metrics.prealloc_ms,
            "total_ms": metrics.total_ms,
            "downtime_ms": metrics.downtime.total_ms if metrics.downtime else None,
        },
        "downtime": asdict(metrics.downtime) if metrics.downtime else None,
        "traffic": _traffic(metrics),
        "send": {
            **_side(metrics.send, metrics.total_ms),
            "coordinator_cpu_seconds": metrics.coordinator_cpu_seconds,
        },
        "recv": _side(metrics.recv, metrics.total_ms),
        "qat": {
            "hardware_requests": _both(metrics, Count.QAT_HARDWARE),
            "software_requests": _both(metrics, Count.QAT_SOFTWARE),
            "simulated": metrics.simulated,
            "fallback_reason": metrics.fallback_reason or None,
        },
        "auto": metrics.auto,
        "transport": metrics.transport or {"kind": options.transport},
        "guest": metrics.guest,
        "rounds": _rounds(metrics),
        "verdict": _verdict(metrics.verdicts[-1]) if metrics.verdicts else None,
        "verification": metrics.verification,
        "verified": metrics.verified,
    }


FIRST = "the first round sends every page"
LOST = "the guest stands still, and a connection that broke had lost these pages"


def _rounds(metrics: Metrics) -> list[Result]:
    """Every round, with the decision that led to it and what came true.

    `expected_downtime_ms` is what the policy expected a switchover at that point to take, that is,
    sending just these pages; `came_true_ms` is how long that took, for the first round of a paused guest
    the whole downtime. Round 1 was preceded by no decision, nor were rounds of a paused guest that bring
    what a broken connection lost.
    """
    records = []
    for index, figures in enumerate(metrics.rounds):
        before = metrics.verdicts[index - 1] if 0 < index <= len(metrics.verdicts) else None
        paused = before is not None and before.decision is Decision.SWITCH_OVER
        downtime = metrics.downtime.total_ms if paused and metrics.downtime else None
        records.append(
            {
                "round": figures.round,
                "pages": figures.pages,
                "normal_pages": figures.normal_pages,
                "zero_pages": figures.zero_pages,
                "wire_bytes": figures.wire_bytes,
                "duration_ms": figures.duration_ms,
                "dirty_pages": figures.dirty_pages,
                "dirty_pages_per_second": figures.dirty_pages_per_second,
                "throttle_percent": figures.throttle_percent,
                "expected_downtime_ms": before.expected_downtime_ms if before else None,
                "decision": before.decision.value if before else None,
                "reason": before.reason if before else LOST if index else FIRST,
                "came_true_ms": downtime if downtime is not None else figures.duration_ms,
            }
        )
    return records


def _verdict(verdict: Verdict) -> Result:
    return {**asdict(verdict), "decision": verdict.decision.value}


def _both(metrics: Metrics, column: Count) -> int:
    return int(metrics.sent[column] + metrics.received[column])


def _traffic(metrics: Metrics) -> Result:
    sent = metrics.sent
    normal, zero = int(sent[Count.NORMAL_PAGES]), int(sent[Count.ZERO_PAGES])
    guest_bytes, wire = normal * PAGE_BYTES, int(sent[Count.WIRE_BYTES])
    seconds = (metrics.total_ms or 0.0) / 1e3
    mean = (normal + zero) / seconds if seconds else 0.0
    return {
        "guest_bytes": guest_bytes,
        "wire_bytes": wire,
        "normal_pages": normal,
        "zero_pages": zero,
        "packets": int(sent[Count.PACKETS]),
        "raw_packets": int(sent[Count.RAW_PACKETS]),
        "compression_ratio": guest_bytes / wire if guest_bytes else None,
        "throughput_mbps": wire * 8 / 1e6 / seconds if seconds else 0.0,
        "pages_per_second_mean": mean,
        "pages_per_second_peak": max(mean, metrics.pages_per_second_peak),
        "guest_megabytes_per_second": guest_bytes / 1e6 / seconds if seconds else 0.0,
    }


def _side(side: SideFigures, total_ms: float | None) -> Result:
    used = side.usage
    return {
        "cpu_seconds": used.cpu_seconds,
        "cpu_percent": used.cpu_seconds / total_ms * 1e5 if total_ms else 0.0,
        "minor_faults": used.minor_faults,
        "major_faults": used.major_faults,
        "involuntary_switches": used.involuntary_switches,
        "private_bytes_max": side.private_bytes_max,
    }


def host_record() -> Result:
    """What this ran on."""
    return {
        "cpu_model": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": memory_figure("MemTotal"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": {
            **{name: metadata.version(name) for name in LIBRARIES},
            "libzstd": zstd.library_version(),
            "zlib": zlib.ZLIB_RUNTIME_VERSION,
        },
        "qat_devices": device_records(),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


Cell = Callable[[Result], str]

COLUMNS: tuple[tuple[str, Cell], ...] = (
    ("method", lambda r: f"{r['options']['method']} {_level(r)}".strip()),
    ("channels", lambda r: str(r["options"]["channels"])),
    ("total ms", lambda r: _number(r["time"]["total_ms"], ".0f")),
    ("downtime ms", lambda r: _number(r["time"]["downtime_ms"], ".1f")),
    ("throughput mbps", lambda r: _number(r["traffic"]["throughput_mbps"], ".0f")),
    ("pages/s", lambda r: _number(r["traffic"]["pages_per_second_mean"], ".0f")),
    ("send CPU %", lambda r: _number(r["send"]["cpu_percent"], ".0f")),
    ("recv CPU %", lambda r: _number(r["recv"]["cpu_percent"], ".0f")),
    ("ratio", lambda r: _number(r["traffic"]["compression_ratio"], ".2f")),
)


def _level(result: Result) -> str:
    level = result["options"]["level"]
    shown = "" if result["options"]["method"] in ("none", AUTO) else str(level)
    return f"{shown} (simulated)".strip() if result["qat"]["simulated"] else shown


def render_table(results: list[Result]) -> str:
    """The table, a row a result, in QEMU's columns."""
    return table(
        [[title for title, _ in COLUMNS], *([cell(result) for _, cell in COLUMNS] for result in results)]
    )


def render_summary(result: Result) -> str:
    """The table of one run, with what it leaves out in the lines below."""
    time, traffic, recv = result["time"], result["traffic"], result["recv"]
    prealloc = (
        f"prealloc took {time['prealloc_ms']:.0f} ms before the clock"
        if time["prealloc_ms"] is not None
        else "no prealloc"
    )
    how = "verified by digests" if result["transport"]["kind"] == "tcp" else "verified byte for byte"
    verified = {True: how, False: "NOT the source", None: "not verified"}
    lines = [
        render_table([result]),
        "",
        f"{len(result['rounds'])} rounds, {traffic['guest_megabytes_per_second']:.0f} guest MB/s, "
        f"{traffic['normal_pages']} normal and {traffic['zero_pages']} zero pages, "
        f"peak {traffic['pages_per_second_peak']:.0f} pages/s",
        f"receivers: {recv['minor_faults']} page faults inside the clock ({prealloc})",
    ]
    if result["downtime"] is not None:
        parts = " + ".join(
            f"{name[:-3].replace('_', ' ')} {ms:.1f}" for name, ms in result["downtime"].items()
        )
        lines.append(f"downtime, ms: {parts}")
    slowest = result["guest"].get("slowest_second_bytes", {})
    seen = [f"{when} {show_size(amount)}" for when, amount in slowest.items() if amount is not None]
    if seen:
        lines.append(f"guest, bytes written in its slowest second: {', '.join(seen)}")
    if result["auto"] is not None:
        lines += _chosen(result)
    qat = result["qat"]
    if qat["hardware_requests"] or qat["software_requests"]:
        where = "SIMULATED hardware" if qat["simulated"] else "hardware"
        lines.append(
            f"QAT: {qat['hardware_requests']} requests in {where}, {qat['software_requests']} in software"
        )
    if result["transport"].get("channels"):
        lines.append(_connections(result["transport"]))
    lines.append(f"{result['status']}, {verified[result['verified']]}")
    return "\n".join(lines)


def _connections(transport: Result) -> str:
    """One line about what carried it."""
    limited = {
        name: sum(channel.get(f"{name}_limited_ms", 0) for channel in transport["channels"])
        for name in ("receiver", "send_buffer")
    }
    limits = [f"{name.replace('_', ' ')} {ms:.0f}" for name, ms in limited.items()]
    tls = "TLS 1.3" if transport["tls"] else "no TLS"
    kept = f"; kept as {transport['kept']}" if transport["kept"] else ""
    return (
        f"to {transport['address']}, {tls}: {transport['reconnections']} reconnections, "
        f"{transport['retransmits']} retransmits; ms limited by: {', '.join(limits)}{kept}"
    )


def _chosen(result: Result) -> list[str]:
    """What method auto did: the share of guest bytes by candidate, and its last choice with the reason."""
    auto, total = result["auto"], result["traffic"]["guest_bytes"]
    compressed = [one for one in auto["candidates"] if one["method"] != "none"]
    plain = total - sum(one["guest_bytes"] for one in compressed)
    shares = [("none", plain)]
    shares += [(f"{one['method']} {one['level']}", one["guest_bytes"]) for one in compressed]
    said = ", ".join(f"{name} {amount / total:.0%}" for name, amount in shares if amount and total)
    lines = [f"auto, by guest bytes: {said or 'nothing to send'}; {len(auto['switches'])} switches"]
    if auto["switches"]:
        last = auto["switches"][-1]
        pair = f"{last['faster']} and {last['stronger']}"
        lines.append(f"last switch at {last['at_ms']:.0f} ms, to {pair}: {last['reason']}")
    return lines


def save_json(result: Result, path: str) -> None:
    """Write the document to what --json names. Raises RunFailed."""
    try:
        _write_json(result, path)
    except OSError as error:
        raise RunFailed(f"--json {path}: {error.strerror}") from error


def _write_json(result: Result, path: str) -> None:
    """A reader never sees half of a document. `-` is standard output."""
    text = json.dumps(result, indent=2) + "\n"
    if path == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    if target.exists() and not target.is_file():
        target.write_text(text)
        return
    beside.write_text(text)
    beside.replace(target)
