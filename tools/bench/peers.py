"""Every method of ours beside QEMU's, and beside its codec alone (the roofline), interleaved."""

from __future__ import annotations

from typing import Any

from guestmem.ram import GuestRam
from pipeline.codecs import METHODS
from pipeline.codecs.method import CodecSettings
from pipeline.errors import HostError, RunFailed
from pipeline.options import AUTO
from pipeline.report.markdown import table
from qat.child import ask_in_child
from tools.bench.request import BenchRequest, here
from tools.bench.roofline import Roofline, roofline
from tools.measuring.progress import say
from tools.measuring.rows import Rows, note, spread
from tools.measuring.spread import Comparison
from tools.measuring.trial import run_ours
from tools.qemu import peer

PACKET_PAGES = 128
QEMU_CHANNELS_OF_NONE = (1, 2)
"""QEMU's `none` is run with both, and its better one counts."""

RIVAL = {"isal": "zlib", "qatzip": "zlib"}
"""What of QEMU's a method of ours is held against, where QEMU has none of that name here."""


def measure(request: BenchRequest) -> dict[str, Any]:
    """Run every row `request.repeat` times, in turn. Raises FerryError."""
    ours = list(request.methods or [*METHODS, AUTO])
    peers, missing = qemu_methods(request, ours)
    rows: Rows = {}
    ours = [name for name in ours if name == AUTO or here(name)]
    for turn in range(1, request.repeat + 1):
        say(f"turn {turn} of {request.repeat}")
        for method in ours:
            if method != AUTO:
                note(rows, f"roofline {method}", _alone(request, method))
            note(rows, f"ours {method}", migrate_ours(request, method))
        for method, channels in peers:
            note(rows, f"qemu {method} {channels}", migrate_qemu(request, method, channels))
    return {"rows": rows, "channels": request.channels, "without_qemu": missing}


def qemu_methods(request: BenchRequest, ours: list[str]) -> tuple[list[tuple[str, int]], str]:
    """QEMU's methods and channels that can be run here, or why there are none."""
    if not request.qemu:
        return [], "QEMU was left out (--no-qemu)"
    try:
        peer.find_qemu()
    except HostError as error:
        say(str(error))
        return [], str(error)
    wanted = {RIVAL.get(name, name) for name in ours} | ({"none", "zstd"} if AUTO in ours else set())
    peers = []
    for method in peer.METHODS:
        if method in wanted or method in ours:
            channels = QEMU_CHANNELS_OF_NONE if method == "none" else (request.channels,)
            peers += [(method, count) for count in channels if _qemu_has(method)]
    return peers, ""


def _qemu_has(method: str) -> bool:
    try:
        peer.check_method(method)
    except HostError as error:
        say(str(error))
        return False
    return True


def _alone(request: BenchRequest, method: str) -> dict[str, float]:
    """The codec alone, in a process of its own: memory of a forked child goes with it."""
    text = ask_in_child(lambda: _roofline_text(request, method))
    if not text:
        raise RunFailed(f"roofline {method}: the measuring process died")
    compress, decompress, ratio = (float(word) for word in text.split())
    return {"compress_s": compress, "decompress_s": decompress, "ratio": ratio}


def _roofline_text(request: BenchRequest, method: str) -> str:
    source = GuestRam.create(request.ram.size_bytes, "roof-source")
    destination = GuestRam.create(request.ram.size_bytes, "roof-dest")
    request.ram.content().fill(source)
    settings = CodecSettings(level=METHODS[method].default_level)
    found: Roofline = roofline(source, destination, method, settings, PACKET_PAGES)
    return f"{found.compress_seconds} {found.decompress_seconds} {found.guest_bytes / found.wire_bytes}"


def migrate_ours(request: BenchRequest, method: str, *more: str) -> dict[str, float]:
    """The figures of one run of `pipeline.run`, with `more` options. Raises RunFailed."""
    arguments = ["--dirty-rate", "0", "--method", method, "--channels", str(request.channels)]
    arguments += ["--prealloc"] if request.prealloc else []
    trial = run_ours([*request.ram_arguments(), *arguments, *more])
    return {
        "mb_s": trial.guest_megabytes_per_second,
        "total_ms": trial.total_ms,
        "ratio": trial.compression_ratio,
        "send_s": trial.result["send"]["cpu_seconds"],
        "recv_s": trial.result["recv"]["cpu_seconds"],
        "downtime_ms": trial.result["time"]["downtime_ms"],
    }


def migrate_qemu(request: BenchRequest, method: str, channels: int) -> dict[str, float]:
    """The figures of one migration by QEMU. Raises FerryError."""
    options = peer.PeerOptions(method, 1, channels, request.prealloc)
    row = peer.migrate(request.ram.content(), request.ram.size_bytes, options)
    return {
        "mb_s": row.guest_megabytes_per_second,
        "total_ms": row.total_ms,
        "ratio": row.compression_ratio,
        "send_s": row.send_cpu_seconds,
        "recv_s": row.recv_cpu_seconds,
        "downtime_ms": row.downtime_ms,
    }


def tables(document: dict[str, Any]) -> str:
    """The tables: all rows, then the pairs, then each codec's cost beside the roofline's."""
    rows = document["rows"]
    parts = [all_rows(rows)]
    pairs = _pairs(rows)
    if len(pairs) > 1:
        parts += ["", table(pairs)]
    elif document["without_qemu"]:
        parts += ["", f"Not beside QEMU: {document['without_qemu']}"]
    roofs = _roofs(rows)
    if len(roofs) > 1:
        parts += ["", table(roofs)]
    return "\n".join(parts)


def all_rows(rows: Rows) -> str:
    """A row for everything that was measured except the codecs alone."""
    out = [["what", "guest MB/s", "total ms", "ratio", "send CPU s", "recv CPU s", "noise"]]
    for name, values in rows.items():
        if name.startswith("roofline"):
            continue
        speed = spread(values, "mb_s")
        out.append(
            [
                name,
                speed.show(),
                f"{spread(values, 'total_ms').median:.0f}",
                f"{spread(values, 'ratio').median:.2f}",
                spread(values, "send_s").show(2),
                spread(values, "recv_s").show(2),
                f"{speed.noise:.0%}" if values[1:] else "-",
            ]
        )
    return table(out)


def _pairs(rows: Rows) -> list[list[str]]:
    out = [["ours / QEMU's", "MB/s", "CPU s of both sides", "ratio"]]
    for name in rows:
        side, _, method = name.partition(" ")
        if side != "ours":
            continue
        rival = _rival(rows, method)
        if rival is None:
            continue
        ours, theirs = rows[name], rows[rival]
        speed = Comparison(spread(ours, "mb_s"), spread(theirs, "mb_s"))
        cpu = Comparison(spread(ours, "send_s", "recv_s"), spread(theirs, "send_s", "recv_s"))
        ratio = spread(ours, "ratio").median / spread(theirs, "ratio").median
        out.append([f"{method} / {rival[5:]} channels", speed.show(), cpu.show(), f"{ratio:.2f} x"])
    return out


def _rival(rows: Rows, method: str) -> str | None:
    """QEMU's row to hold a method against: its own, the one named in RIVAL, or its fastest."""
    wanted = None if method == AUTO else method
    candidates = [name for name in rows if name.startswith("qemu ")]
    if wanted is not None:
        named = [name for name in candidates if name.split()[1] == wanted]
        candidates = named or [name for name in candidates if name.split()[1] == RIVAL.get(wanted)]
    return max(candidates, key=lambda name: spread(rows[name], "mb_s").median, default=None)


def _roofs(rows: Rows) -> list[list[str]]:
    out = [["codec", "alone, CPU s", "in the pipeline, CPU s", "pipeline / alone"]]
    for name, alone in rows.items():
        side, _, method = name.partition(" ")
        if side == "roofline":
            whole = spread(rows[f"ours {method}"], "send_s", "recv_s")
            bound = spread(alone, "compress_s", "decompress_s")
            out.append([method, bound.show(2), whole.show(2), Comparison(whole, bound).show()])
    return out
