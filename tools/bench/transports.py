"""Channels over loopback TCP beside the queue in shared memory, and beside QEMU's multifd over loopback."""

from __future__ import annotations

from typing import Any

from pipeline.report.markdown import table
from tools.bench.peers import all_rows, migrate_ours, migrate_qemu, qemu_methods
from tools.bench.request import BenchRequest, here
from tools.measuring.progress import say
from tools.measuring.rows import Rows, note, spread
from tools.measuring.spread import Comparison

METHODS = ("none", "isal", "zstd")
RIVAL = {"none": "none", "zstd": "zstd"}


def measure(request: BenchRequest) -> dict[str, Any]:
    """Run everything `request.repeat` times, in turn. Raises FerryError."""
    methods = [name for name in request.methods or METHODS if here(name)]
    peers, missing = qemu_methods(request, [name for name in methods if name in RIVAL])
    rows: Rows = {}
    for turn in range(1, request.repeat + 1):
        say(f"turn {turn} of {request.repeat}")
        for method in methods:
            note(rows, f"queue {method}", migrate_ours(request, method))
            note(rows, f"tcp {method}", migrate_ours(request, method, "--transport", "tcp"))
        for method, channels in peers:
            note(rows, f"qemu {method} {channels}", migrate_qemu(request, method, channels))
    return {"rows": rows, "channels": request.channels, "without_qemu": missing}


def tables(document: dict[str, Any]) -> str:
    """All rows, then tcp against the queue and against QEMU's better row of the same method."""
    rows = document["rows"]
    out = [["tcp", "against", "MB/s", "CPU s of both sides"]]
    for name in rows:
        side, _, method = name.partition(" ")
        if side == "tcp":
            rivals = [other for other in rows if other.startswith(f"qemu {method} ")]
            best = max(rivals, key=lambda other: spread(rows[other], "mb_s").median, default=None)
            out += [_against(rows, name, other) for other in (f"queue {method}", best) if other]
    missing = ["", f"Not beside QEMU: {document['without_qemu']}"] if document["without_qemu"] else []
    return "\n".join([all_rows(rows), "", table(out), *missing])


def _against(rows: Rows, name: str, other: str) -> list[str]:
    ours, theirs = rows[name], rows[other]
    speed = Comparison(spread(ours, "mb_s"), spread(theirs, "mb_s"))
    cpu = Comparison(spread(ours, "send_s", "recv_s"), spread(theirs, "send_s", "recv_s"))
    return [name.partition(" ")[2], other, speed.show(), cpu.show()]
