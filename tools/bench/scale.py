"""What a bigger guest, more channels and a short run cost."""

from __future__ import annotations

from typing import Any

from pipeline.errors import HostError
from pipeline.processes.memory import available_bytes
from pipeline.report.markdown import table
from tools.bench.large import large, terms_table
from tools.bench.request import BenchRequest
from tools.bench.terms import measure_terms
from tools.measuring.progress import say
from tools.measuring.rows import Rows, note, spread
from tools.measuring.sizes import size_argument
from tools.measuring.spread import Comparison
from tools.measuring.trial import Trial, run_ours

SIZES = (0.25, 1, 4, 8)
"""Of --size."""

TERMS_BYTES = 8 << 30
"""The guest on which the terms of large ones are measured, where there is room: two parts of a scan."""

START_SIZE = 1 / 16
CHANNELS = (1, 2, 4, 8, 16, 64)
METHOD = "zstd"


def measure(request: BenchRequest) -> dict[str, Any]:
    """Run everything `request.repeat` times, in turn. Raises FerryError."""
    base = size_argument(request.ram.size_bytes)
    if not _fits(request.ram.size_bytes):
        raise HostError(f"no room for a guest of {base} here; choose a smaller --size")
    rows: Rows = {}
    for turn in range(1, request.repeat + 1):
        say(f"turn {turn} of {request.repeat}")
        for share in SIZES:
            if _fits(request.share(share).ram.size_bytes):
                note(rows, f"size {size_argument(request.share(share).ram.size_bytes)}", _run(request, share))
        for channels in CHANNELS:
            note(rows, f"channels {channels}", _run(request, 1, channels))
        note(
            rows,
            f"start {size_argument(request.share(START_SIZE).ram.size_bytes)}",
            _run(request, START_SIZE),
        )
    say("the terms of large guests")
    size = max(
        (size for size in (TERMS_BYTES, TERMS_BYTES // 4) if _fits(size)), default=request.ram.size_bytes
    )
    return {"rows": rows, "base": base, "terms": measure_terms(size), "terms_bytes": size}


def _fits(size_bytes: int) -> bool:
    needed = 2 * size_bytes + (1 << 30)
    found = available_bytes()
    if found < needed:
        say(f"without {size_argument(size_bytes)}: only {found >> 20} MiB are free")
        return False
    return True


def _run(request: BenchRequest, share: float, channels: int | None = None) -> dict[str, float]:
    fill = [] if request.ram.fill is None else ["--fill", request.ram.fill]
    size = ["--size", str(request.share(share).ram.size_bytes)]
    arguments = [*size, *fill, "--prealloc", "--dirty-rate", "0", "--method", METHOD]
    trial: Trial = run_ours([*arguments, "--channels", str(channels or request.channels)])
    gib = trial.result["options"]["size_bytes"] / 2**30
    return {
        "total_ms": trial.total_ms,
        "cpu_s_per_gib": trial.cpu_seconds / gib,
        "coordinator_share": trial.result["send"]["coordinator_cpu_seconds"] / trial.cpu_seconds,
        "private_mib": max(trial.result[side]["private_bytes_max"] for side in ("send", "recv")) / 2**20,
        "wall_s": trial.wall_seconds,
    }


def tables(document: dict[str, Any]) -> str:
    """One table; sizes are held against --size, channels against 2."""
    rows, middle = document["rows"], document["base"]
    out = [["what", "total ms", "CPU s per GiB", "against", "coordinator", "private MiB", "wall s"]]
    for name, values in rows.items():
        kind = name.split()[0]
        key, base = ("cpu_s_per_gib", f"size {middle}") if kind == "size" else ("total_ms", "channels 2")
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
            table(out),
            "",
            f"Sizes: CPU per GiB against {middle}. Channels: total ms against 2.",
            "",
            f"Terms, measured with a guest of {size_argument(document['terms_bytes'])}:",
            "",
            terms_table(document["terms"]),
            "",
            "Large guests by arithmetic from these:",
            "",
            large(document["terms"], int(document["host"]["cpus"])),
        ]
    )
