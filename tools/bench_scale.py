"""What a bigger guest, more channels and a short run cost."""

from __future__ import annotations

from typing import Any

from pipeline.errors import HostError
from pipeline.markdown import table
from pipeline.memory import available_bytes
from tools.bench_request import BenchRequest
from tools.progress import say
from tools.provenance import host_line
from tools.spread import Comparison, Spread
from tools.trial import Trial, run_ours

SIZES = ("256M", "1G", "4G", "8G")
CHANNELS = (1, 2, 4, 8, 16)
METHOD = "zstd"
START_SIZE = "64M"


def measure(request: BenchRequest) -> dict[str, Any]:
    """Run everything `request.repeat` times, in turn. Raises FerryError."""
    rows: dict[str, list[dict[str, float]]] = {}
    for turn in range(1, request.repeat + 1):
        say(f"turn {turn} of {request.repeat}")
        for size in SIZES:
            if _fits(size):
                _note(rows, f"size {size}", _run(request, size, request.channels))
        for channels in CHANNELS:
            _note(rows, f"channels {channels}", _run(request, "1G", channels))
        _note(rows, f"start {START_SIZE}", _run(request, START_SIZE, request.channels))
    return {"rows": rows}


def _fits(size: str) -> bool:
    needed = {"256M": 1, "1G": 3, "4G": 9, "8G": 17}[size] << 30
    found = available_bytes()
    if found is not None and found < needed:
        say(f"without {size}: only {found >> 20} MiB are free")
        return False
    return True


def _note(rows: dict[str, list[dict[str, float]]], name: str, figures: dict[str, float]) -> None:
    rows.setdefault(name, []).append(figures)
    say(f"  {name:14} " + ", ".join(f"{key} {value:.2f}" for key, value in figures.items()))


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


def _spread(values: list[dict[str, float]], key: str) -> Spread:
    return Spread(tuple(value[key] for value in values))


def render(document: dict[str, Any]) -> str:
    """One table; sizes are held against 1G, channels against 2."""
    rows = document["rows"]
    if "size 1G" not in rows:
        raise HostError("no room for a guest of 1 GiB here")
    out = [["what", "total ms", "CPU s per GiB", "against", "coordinator", "private MiB", "wall s"]]
    for name, values in rows.items():
        kind = name.split()[0]
        key, base = ("cpu_s_per_gib", "size 1G") if kind == "size" else ("total_ms", "channels 2")
        against = (
            "-" if kind == "start" else Comparison(_spread(values, key), _spread(rows[base], key)).show()
        )
        out.append(
            [
                name,
                _spread(values, "total_ms").show(),
                _spread(values, "cpu_s_per_gib").show(2),
                against,
                f"{_spread(values, 'coordinator_share').median:.1%}",
                f"{_spread(values, 'private_mib').median:.0f}",
                _spread(values, "wall_s").show(2),
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
