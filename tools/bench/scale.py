"""What a bigger guest, more channels and a short run cost."""

from __future__ import annotations

from typing import Any

from pipeline.errors import HostError
from pipeline.processes.memory import available_bytes
from pipeline.report.markdown import table
from tools.bench.request import BenchRequest
from tools.measuring.progress import say
from tools.measuring.provenance import host_line
from tools.measuring.rows import Rows, note, spread
from tools.measuring.spread import Comparison
from tools.measuring.trial import Trial, run_ours

SIZES = ("256M", "1G", "4G", "8G")
CHANNELS = (1, 2, 4, 8, 16)
METHOD = "zstd"
START_SIZE = "64M"


def measure(request: BenchRequest) -> dict[str, Any]:
    """Run everything `request.repeat` times, in turn. Raises FerryError."""
    if not _fits("1G"):
        raise HostError("no room for a guest of 1 GiB here")
    rows: Rows = {}
    for turn in range(1, request.repeat + 1):
        say(f"turn {turn} of {request.repeat}")
        for size in SIZES:
            if _fits(size):
                note(rows, f"size {size}", _run(request, size, request.channels))
        for channels in CHANNELS:
            note(rows, f"channels {channels}", _run(request, "1G", channels))
        note(rows, f"start {START_SIZE}", _run(request, START_SIZE, request.channels))
    return {"rows": rows}


def _fits(size: str) -> bool:
    needed = {"256M": 1, "1G": 3, "4G": 9, "8G": 17}[size] << 30
    found = available_bytes()
    if found < needed:
        say(f"without {size}: only {found >> 20} MiB are free")
        return False
    return True


def _run(request: BenchRequest, size: str, channels: int) -> dict[str, float]:
    fill = [] if request.ram.fill is None else ["--fill", request.ram.fill]
    arguments = ["--size", size, *fill, "--prealloc", "--dirty-rate", "0", "--method", METHOD]
    trial: Trial = run_ours([*arguments, "--channels", str(channels)])
    gib = trial.result["options"]["size_bytes"] / 2**30
    return {
        "total_ms": trial.total_ms,
        "cpu_s_per_gib": trial.cpu_seconds / gib,
        "coordinator_share": trial.result["send"]["coordinator_cpu_seconds"] / trial.cpu_seconds,
        "private_mib": max(trial.result[side]["private_bytes_max"] for side in ("send", "recv")) / 2**20,
        "wall_s": trial.wall_seconds,
    }


def render(document: dict[str, Any]) -> str:
    """One table; sizes are held against 1G, channels against 2."""
    rows = document["rows"]
    out = [["what", "total ms", "CPU s per GiB", "against", "coordinator", "private MiB", "wall s"]]
    for name, values in rows.items():
        kind = name.split()[0]
        key, base = ("cpu_s_per_gib", "size 1G") if kind == "size" else ("total_ms", "channels 2")
        against = "-" if kind == "start" else Comparison(spread(values, key), spread(rows[base], key)).show()
        out.append(
            [
                name,
                spread(values, "total_ms").show(),
                spread(values, "cpu_s_per_gib").show(2),
                against,
                f"{spread(values, 'coordinator_share').median:.1%}",
                f"{spread(values, 'private_mib').median:.0f}",
                spread(values, "wall_s").show(2),
            ]
        )
    return "\n".join(
        [
            host_line(document),
            "",
            table(out),
            "",
            "Sizes: CPU per GiB against 1G. Channels: total ms against 2.",
        ]
    )
