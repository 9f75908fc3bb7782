"""What a migration through the relay came to: its document, and the table of it."""

from __future__ import annotations

import time
from typing import Any

from pipeline.processes.usage import Usage
from pipeline.relay.codec_pool import CodecPool, MethodCount
from pipeline.relay.delivery import Carried
from pipeline.relay.session import COMPLETED, Session
from pipeline.report.markdown import table

SCHEMA_VERSION = 1


def document(session: Session, side: str, cpu_before: float, command: list[str]) -> dict[str, Any]:
    """All that is known at this side. `cpu_before` is what this relay had used when the migration began."""
    figures, pool = session.figures, session.shared.pool
    streams = [_stream(session, number) for number in sorted(session.streams)]
    guest = sum(stream["bytes"] for stream in streams)
    wire = sum(stream["wire_bytes"] for stream in streams)
    seconds = time.monotonic() - figures.began_at
    completed = session.outcome in (None, COMPLETED)
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "completed" if completed else "failed",
        "error": None if completed else session.outcome,
        "command": command,
        "side": side,
        "name": session.name or None,
        "state": session.state.value,
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(figures.began_unix)),
        "time": {"total_ms": seconds * 1e3, "stalled_ms": figures.stalled_seconds * 1e3},
        "traffic": {
            "bytes": guest,
            "wire_bytes": wire,
            "ratio": guest / wire if wire else None,
            "retransmitted_bytes": sum(stream["retransmitted_bytes"] for stream in streams),
            "duplicate_bytes": session.into.duplicates_bytes,
            "connections_sent_bytes": figures.wire_sent_bytes
            + sum(w.sent_bytes for w in session.wires.values()),
        },
        "streams": streams,
        "methods": _methods(pool),
        "auto": None if pool.auto is None else pool.auto.record(),
        "cpu": {"seconds": Usage.now().cpu_seconds - cpu_before},
        "stalls": figures.stalls,
        "reconnections": figures.reconnections,
        "breaks": figures.breaks[:100],
        "undecided": figures.undecided,
        "hidden": {
            "peak_bytes": session.out.window.peak_bytes,
            "limit_bytes": session.out.window.limit_bytes,
            "held_peak_bytes": session.into.peak_held_bytes,
        },
        "qat": pool.requests(),
        "blackout_ms": getattr(session, "blackout_ms", None),
        "qemu": getattr(getattr(session, "controller", None), "figures", None),
        "other_relay": session.peer_report,
    }


def _stream(session: Session, number: int) -> dict[str, Any]:
    stream = session.streams[number]
    carried = session.out.carried.get(number, Carried())
    return {
        "number": number,
        "kind": stream.kind.name.lower(),
        "bytes": carried.plain_bytes,
        "wire_bytes": carried.payload_bytes,
        "ratio": carried.plain_bytes / carried.payload_bytes if carried.payload_bytes else None,
        "retransmitted_bytes": carried.retransmitted_bytes,
        "returned_bytes": stream.written_bytes,
    }


def _methods(pool: CodecPool) -> dict[str, Any]:
    whole = sum(count.plain_bytes for count in pool.counts.encoded.values())
    return {name: _method(count, whole) for name, count in sorted(pool.counts.encoded.items())}


def _method(count: MethodCount, whole: int) -> dict[str, Any]:
    return {
        "blocks": count.blocks,
        "bytes": count.plain_bytes,
        "wire_bytes": count.payload_bytes,
        "share": count.plain_bytes / whole if whole else 0.0,
        "cpu_seconds": count.cpu_ns / 1e9,
    }


def render(found: dict[str, Any]) -> str:
    """For a terminal."""
    rows = [["stream", "MB", "MB on the wire", "ratio", "sent again MB", "MB back"]]
    traffic = found["traffic"]
    whole = {
        "number": "all",
        "kind": "",
        "returned_bytes": sum(s["returned_bytes"] for s in found["streams"]),
    }
    for one in [*found["streams"], {**traffic, **whole}]:
        rows.append(
            [
                f"{one['number']} {one['kind']}".strip(),
                f"{one['bytes'] / 1e6:.1f}",
                f"{one['wire_bytes'] / 1e6:.1f}",
                "-" if one["ratio"] is None else f"{one['ratio']:.2f}",
                f"{one['retransmitted_bytes'] / 1e6:.1f}",
                f"{one['returned_bytes'] / 1e6:.2f}",
            ]
        )
    other = found["other_relay"] or {}
    methods = ", ".join(f"{name} {one['share']:.0%}" for name, one in found["methods"].items()) or "none"
    theirs = f", {other['cpu']['seconds']:.2f} there" if other.get("cpu") else ""
    qat = found["qat"]
    device = ""
    if qat["hardware_requests"] or qat["software_requests"]:
        device = f"; QAT requests: {qat['hardware_requests']} hardware, {qat['software_requests']} software"
    return "\n".join(
        [
            table(rows),
            "",
            f"{found['time']['total_ms'] / 1e3:.2f} s; methods: {methods}{device}",
            f"CPU s of the relays: {found['cpu']['seconds']:.2f} here{theirs}; at most "
            f"{found['hidden']['peak_bytes'] / 1e6:.1f} MB under way; "
            f"{found['reconnections']} reconnections, {found['stalls']} stalls of "
            f"{found['time']['stalled_ms'] / 1e3:.1f} s in all",
            *_of_qemu(found),
            found["status"] if found["error"] is None else f"{found['status']}: {found['error']}",
        ]
    )


def _of_qemu(found: dict[str, Any]) -> list[str]:
    """What QEMU says itself, and how long no guest ran."""
    said = found["qemu"]
    if not said:
        return []
    blackout = found["blackout_ms"]
    measured = "" if blackout is None else f"; no guest ran for {blackout:.0f} ms, as the relays saw it"
    return [
        f"QEMU: {said['status']}, {said['total_ms'] or 0} ms, downtime {said['downtime_ms'] or 0} ms, "
        f"{said['rounds'] or 0} rounds{measured}"
    ]
