"""Method auto against every fixed method and level, by image and bandwidth, interleaved."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pipeline.options import AUTO
from pipeline.report.markdown import table
from tools.bench.request import BANDWIDTHS, BenchRequest, here
from tools.measuring.images import KINDS, write_image
from tools.measuring.progress import say
from tools.measuring.spread import Spread
from tools.measuring.trial import Trial, run_ours

FIXED = (
    *("none", "lz4 -15", "lz4 1", "isal 1", "zstd -5"),
    *("zstd 1", "zstd 3", "zstd 5", "zstd 7", "zstd 9", "zstd 12"),
)

FAR_OFF = 1.3
"""A fixed method that took this much longer than the best of the first turn is not repeated."""

ALLOWED_BEHIND_BEST, ALLOWED_BEHIND_NONE = 1.05, 1.02


def measure(request: BenchRequest) -> dict[str, Any]:
    """Run every cell `request.repeat` times, in turn. Raises FerryError, OSError."""
    fixed = [name for name in FIXED if here(name.split()[0])]
    cells: list[dict[str, Any]] = []
    corpus = None if request.ram.fill is None else Path(request.ram.fill)
    with tempfile.TemporaryDirectory(prefix="ramferry-bench-") as folder:
        for kind in request.images or KINDS:
            image = write_image(kind, request.ram.size_bytes, corpus, Path(folder))
            for bandwidth in request.bandwidths or BANDWIDTHS:
                say(f"{kind}, {bandwidth}")
                runs = _cell(image, bandwidth, fixed, request)
                cells.append({"image": kind, "bandwidth": bandwidth, "total_ms": runs})
                say("  " + _judged(cells[-1])[-1])
            image.unlink()
    return {"cells": cells, "size_bytes": request.ram.size_bytes, "channels": request.channels}


def _cell(image: Path, bandwidth: str, fixed: list[str], request: BenchRequest) -> dict[str, list[float]]:
    runs: dict[str, list[float]] = {}
    for _ in range(request.repeat):
        best = min((min(times) for times in runs.values()), default=float("inf"))
        for name in [AUTO, *fixed]:
            if name != AUTO and name in runs and min(runs[name]) > FAR_OFF * best:
                continue
            runs.setdefault(name, []).append(
                limited(["--image", str(image)], bandwidth, name, request.channels).total_ms
            )
            say(f"    {name:8} {runs[name][-1]:8.0f} ms")
    return runs


def limited(ram_arguments: list[str], bandwidth: str, name: str, channels: int) -> Trial:
    """One run of a method (`none`, `zstd 3`) over a wire of that bandwidth. Raises RunFailed."""
    method, _, level = name.partition(" ")
    arguments = [*ram_arguments, "--prealloc", "--dirty-rate", "0", "--no-verify"]
    arguments += ["--max-bandwidth", bandwidth, "--channels", str(channels), "--method", method]
    return run_ours([*arguments, *(["--level", level] if level else [])])


def _judged(cell: dict[str, Any]) -> list[str]:
    """A cell's row: auto, the best fixed method, none, and what the claims say of them."""
    times = {name: Spread(tuple(values)) for name, values in cell["total_ms"].items()}
    auto = times.pop(AUTO)
    best = min(times, key=lambda name: times[name].median)
    behind_best = auto.median / times[best].median
    behind_none = auto.median / times["none"].median
    good = behind_best <= ALLOWED_BEHIND_BEST and behind_none <= ALLOWED_BEHIND_NONE
    return [
        f"{cell['image']}, {cell['bandwidth'] if cell['bandwidth'] != '0' else 'no limit'}",
        auto.show(),
        best,
        times[best].show(),
        f"{behind_best:.3f}",
        f"{behind_none:.3f}",
        "yes" if good else "tie" if auto.overlaps(times[best]) and behind_none <= 1.0 else "NO",
    ]


def tables(document: dict[str, Any]) -> str:
    """One table with a row per cell."""
    head = [
        *("image, wire", "auto ms", "best fixed", "its ms", "auto / best", "auto / none"),
        "within 5 % and 2 %",
    ]
    rows = [_judged(cell) for cell in document["cells"]]
    reached = sum(row[-1] == "yes" for row in rows)
    guest = f"{document['size_bytes'] >> 20} MiB, {document['channels']} channels, prealloc"
    return "\n".join(
        [
            table([head, *rows]),
            "",
            f"{reached} of {len(rows)} cells; guest of {guest}.",
        ]
    )
