"""The result: one JSON document a run (DESIGN part 7)."""

from __future__ import annotations

from dataclasses import asdict

from guestmem.page import PAGE_BYTES
from pipeline.errors import FerryError, one_line, traceback_of
from pipeline.options import Options
from pipeline.policy import Verdict
from pipeline.processes.usage import SideFigures
from pipeline.report.columns import Result
from pipeline.report.metrics import Counts, Metrics

SCHEMA_VERSION = 2
"""2 renamed fields of `auto` (candidates, faster, stronger) and `transport` (output); `traceback` is new."""


def status_of(error: FerryError | None) -> str:
    """The `status` for how a run ended."""
    return "completed" if error is None else error.status


def build_result(
    options: Options, metrics: Metrics, command: list[str], host: Result, error: FerryError | None
) -> Result:
    """The document of DESIGN part 7.

    `guest_bytes` are the bytes of normal pages before compression: zero pages never travel, so
    they are in no byte count and in no ratio. `wire_bytes` are packet headers, page numbers and
    payload. `compression_ratio` is the one over the other, null when nothing normal travelled.
    `cpu_percent` is CPU seconds over `total_ms`: 200 is two full cores; the guest is in neither
    side. What was not measured is null: rates of a run whose clock never ran, and what a side used whose
    workers did not end well enough to say it. `simulated` is true where a device was modelled and not used.
    `traceback` says where the error came from.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "status": status_of(error),
        "error": None if error is None else one_line(error),
        "traceback": None if error is None else traceback_of(error),
        "command": command,
        "options": {
            **options.record(),
            "size_bytes": metrics.size_bytes or (options.guest.size_bytes if options.guest else None),
            "dirty_log": metrics.dirty_log or options.dirty_log,
        },
        "host": host,
        "time": {
            "setup_ms": metrics.setup_ms,
            "prealloc_ms": metrics.prealloc_ms,
            "total_ms": metrics.total_ms,
            "downtime_ms": metrics.downtime.total_ms if metrics.downtime else None,
            "stood_still_ms": metrics.stood_still_ms,
            "switchovers": metrics.switchovers,
            "returned_switchovers_ms": metrics.returned_ms,
        },
        "memory": {
            "source_huge_bytes": metrics.source_huge_bytes,
            "destination_huge_bytes": metrics.destination_huge_bytes,
            "source_bytes_by_node": metrics.source_nodes,
        },
        "placement": metrics.placement or None,
        "downtime": asdict(metrics.downtime) if metrics.downtime else None,
        "traffic": _traffic(metrics.sent, metrics),
        "send": {
            **_side(metrics.send, metrics.total_ms),
            "coordinator_cpu_seconds": metrics.coordinator_cpu_seconds,
        },
        "recv": _side(metrics.recv, metrics.total_ms),
        "qat": {
            "hardware_requests": metrics.sent.qat_hardware + metrics.received.qat_hardware,
            "software_requests": metrics.sent.qat_software + metrics.received.qat_software,
            "simulated": metrics.simulated,
            "fallback_reason": metrics.fallback_reason or None,
        },
        "auto": metrics.auto,
        "delta": metrics.deltas.record() if metrics.deltas else None,
        "transport": metrics.transport or {"kind": options.transport},
        "guest": metrics.guest,
        "rounds": _rounds(metrics),
        "verdict": _verdict(metrics.verdicts[-1]) if metrics.verdicts else None,
        "verification": metrics.verification,
        "verified": metrics.verified,
        "pages_written_since": metrics.pages_written_since,
    }


FIRST = "the first round sends every page"
LOST = "the guest stands still, and a connection that broke had lost these pages"
RETURNED = "the switchover took longer than the limit, so the guest ran again"


def _rounds(metrics: Metrics) -> list[Result]:
    """Every round, with the decision that led to it and what came true.

    `expected_downtime_ms` is what the policy expected a switchover at that point to take, that is,
    sending just these pages; `came_true_ms` is how long that took, for the first round of a paused guest
    the whole downtime. Round 1 was preceded by no decision, nor were rounds of a paused guest that bring
    what a broken connection lost.
    """
    records = []
    for index, figures in enumerate(metrics.rounds):
        before = figures.decided_by
        is_last_switchover = figures.paused and not any(
            later.paused and later.decided_by for later in metrics.rounds[index + 1 :]
        )
        downtime = None
        if is_last_switchover and before is not None and metrics.downtime is not None:
            downtime = metrics.downtime.total_ms
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
                "reason": before.reason if before else _reason(index, paused=figures.paused),
                "paused": figures.paused,
                "came_true_ms": downtime if downtime is not None else figures.duration_ms,
                "delta": asdict(figures.deltas) if figures.deltas else None,
            }
        )
    return records


def _reason(index: int, *, paused: bool) -> str:
    """Why a round was made that no verdict led to."""
    if index == 0:
        return FIRST
    return LOST if paused else RETURNED


def _verdict(verdict: Verdict) -> Result:
    return {**asdict(verdict), "decision": verdict.decision.value}


def _traffic(sent: Counts, metrics: Metrics) -> Result:
    normal, zero = sent.normal_pages, sent.zero_pages
    guest_bytes, wire = normal * PAGE_BYTES, sent.wire_bytes
    seconds = (metrics.total_ms or 0.0) / 1e3
    mean = (normal + zero) / seconds if seconds else None
    return {
        "guest_bytes": guest_bytes,
        "wire_bytes": wire,
        "normal_pages": normal,
        "zero_pages": zero,
        "packets": sent.packets,
        "raw_packets": sent.raw_packets,
        "compression_ratio": guest_bytes / wire if guest_bytes else None,
        "throughput_mbps": wire * 8 / 1e6 / seconds if seconds else None,
        "pages_per_second_mean": mean,
        "pages_per_second_peak": None if mean is None else max(mean, metrics.pages_per_second_peak),
        "guest_megabytes_per_second": guest_bytes / 1e6 / seconds if seconds else None,
    }


SIDE = (
    "cpu_seconds",
    "cpu_percent",
    "minor_faults",
    "major_faults",
    "involuntary_switches",
    "private_bytes_max",
)


def _side(side: SideFigures, total_ms: float | None) -> Result:
    used = side.usage
    if not side.private_bytes_max:
        return dict.fromkeys(SIDE)
    return {
        "cpu_seconds": used.cpu_seconds,
        "cpu_percent": used.cpu_seconds / total_ms * 1e5 if total_ms else None,
        "minor_faults": used.minor_faults,
        "major_faults": used.major_faults,
        "involuntary_switches": used.involuntary_switches,
        "private_bytes_max": side.private_bytes_max,
    }
