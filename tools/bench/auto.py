"""Method auto against every fixed method and level, by image and bandwidth, interleaved.

Three suites: through the queue with a limit, over TCP between network namespaces, on an emulated QAT device.
A cell is judged by the quickest turn of each method: what slows a turn on a busy host is not the method. One
that holds after a turn is not run again. Over a slow wire a part of the image is enough.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from guestmem.units import parse_bytes_per_second
from pipeline.options import AUTO
from pipeline.report.markdown import table
from tools.bench.network import DESTINATION_ADDRESS, PORT, Cable, cable, receiver
from tools.bench.request import BANDWIDTHS, BenchRequest, here
from tools.measuring.images import kinds_here, thinned, write_image
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


LINKS_MBIT = (100, 1000, 10000)
INSTANCES = (1, 4)
"""Of the emulated device: how many channels can attach."""

CELL_SECONDS = 5.0
"""What sending the whole image raw may take: over a slower wire a part of it is sent."""

MIN_CELL_BYTES = 128 << 20

RunOne = Callable[[list[str], str, str, int], Trial]
"""A run of the RAM that those arguments name, over that wire, by that method, with so many channels."""


@dataclass(frozen=True)
class Wire:
    """What a run is told, how much it carries (0: no limit), and how a run goes over it."""

    name: str
    bytes_per_second: int
    run: RunOne


def measure(request: BenchRequest) -> dict[str, Any]:
    """Run every cell `request.repeat` times, in turn. Raises FerryError, OSError."""
    return _measure(request, _limits(request, "", limited), FIXED)


def _limits(request: BenchRequest, more: str, run: RunOne) -> dict[str, Wire]:
    return {
        f"{name}{more}": Wire(name, parse_bytes_per_second(name), run)
        for name in request.bandwidths or BANDWIDTHS
    }


def measure_links(request: BenchRequest) -> dict[str, Any]:
    """The same over TCP, between namespaces with a cable of each speed. Raises FerryError, OSError."""
    with cable() as wire:
        wires = {
            f"{mbit} Mbit/s": Wire(str(mbit), mbit * 125_000, partial(_over_cable, wire))
            for mbit in LINKS_MBIT
        }
        return _measure(request, wires, FIXED)


def measure_device(request: BenchRequest) -> dict[str, Any]:
    """The same with an emulated QAT device of some instances. Raises FerryError, OSError."""
    wires = {
        title: wire
        for count in INSTANCES
        for title, wire in _limits(
            request, f", {count} instance{'s' * (count > 1)}", partial(_on_device, count)
        ).items()
    }
    return _measure(request, wires, (*FIXED, "qatzip 1"))


def _measure(request: BenchRequest, wires: dict[str, Wire], fixed: tuple[str, ...]) -> dict[str, Any]:
    names = [name for name in fixed if here(name.split()[0])]
    cells: list[dict[str, Any]] = []
    corpus = None if request.ram.fill is None else Path(request.ram.fill)
    with tempfile.TemporaryDirectory(prefix="ramferry-bench-") as folder:
        for kind in kinds_here(request.images, request.ram.size_bytes):
            image = write_image(kind, request.ram.size_bytes, corpus, Path(folder))
            for title, wire in wires.items():
                say(f"{kind}, {title}")
                part = thinned(image, _keep_every(request.ram.size_bytes, wire))
                cells.append({"image": kind, "bandwidth": title, "total_ms": {}})
                _fill_cell(cells[-1], part, wire, names, request)
            for path in Path(folder).iterdir():
                path.unlink()
    return {"cells": cells, "size_bytes": request.ram.size_bytes, "channels": request.channels}


def _keep_every(size_bytes: int, wire: Wire) -> int:
    """A power of two: one of so many blocks of the image is sent."""
    every, enough = 1, max(MIN_CELL_BYTES, wire.bytes_per_second * CELL_SECONDS)
    while wire.bytes_per_second and size_bytes // every // 2 >= enough:
        every *= 2
    return every


def _fill_cell(
    cell: dict[str, Any], image: Path, wire: Wire, fixed: list[str], request: BenchRequest
) -> None:
    runs: dict[str, list[float]] = cell["total_ms"]
    for _ in range(request.repeat):
        best = min((min(times) for times in runs.values()), default=float("inf"))
        for name in [AUTO, *fixed]:
            if name != AUTO and name in runs and min(runs[name]) > FAR_OFF * best:
                continue
            took_ms = wire.run(["--image", str(image)], wire.name, name, request.channels).total_ms
            runs.setdefault(name, []).append(took_ms)
            say(f"    {name:8} {took_ms:8.0f} ms")
        judged = _judged(cell)[-1]
        say(f"  {judged}")
        if judged == "yes":
            break


def limited(
    ram_arguments: list[str], bandwidth: str, name: str, channels: int, prefix: tuple[str, ...] = ()
) -> Trial:
    """One run of a method (`none`, `zstd 3`) over a wire of that bandwidth. Raises RunFailed."""
    arguments = ["--prealloc", "--no-verify", "--max-bandwidth", bandwidth]
    return run_ours([*_arguments(ram_arguments, name, channels), *arguments], prefix=prefix)


def _on_device(instances: int, ram_arguments: list[str], bandwidth: str, name: str, channels: int) -> Trial:
    emulator = (sys.executable, "-m", "qat.emulator", "--instances", str(instances), "--")
    return limited(ram_arguments, bandwidth, name, channels, emulator)


def _over_cable(between: Cable, ram_arguments: list[str], mbit: str, name: str, channels: int) -> Trial:
    between.speed(int(mbit))
    there = f"{DESTINATION_ADDRESS}:{PORT}"
    with receiver(between, "--listen", there, "--insecure", "--prealloc"):
        arguments = ["--to", there, "--insecure", "--no-verify"]
        return run_ours(
            [*_arguments(ram_arguments, name, channels), *arguments],
            module="pipeline.send",
            prefix=between.source,
        )


def _arguments(ram_arguments: list[str], name: str, channels: int) -> list[str]:
    method, _, level = name.partition(" ")
    chosen = ["--method", method, *(["--level", level] if level else [])]
    return [*ram_arguments, "--dirty-rate", "0", "--channels", str(channels), *chosen]


def _judged(cell: dict[str, Any]) -> list[str]:
    """A cell's row: auto, the best fixed method, none, and what the claims say of them."""
    times = {name: Spread(tuple(values)) for name, values in cell["total_ms"].items()}
    auto = times.pop(AUTO)
    quickest = {name: min(spread.values) for name, spread in times.items()}
    best = min(quickest, key=lambda name: quickest[name])
    behind_best = min(auto.values) / quickest[best]
    behind_none = min(auto.values) / quickest["none"]
    good = behind_best <= ALLOWED_BEHIND_BEST and behind_none <= ALLOWED_BEHIND_NONE
    return [
        f"{cell['image']}, {re.sub('^0', 'no limit', cell['bandwidth'])}",
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
    guest = f"at most {document['size_bytes'] >> 20} MiB, {document['channels']} channels, prealloc"
    return "\n".join(
        [
            table([head, *rows]),
            "",
            f"{reached} of {len(rows)} cells; guest of {guest}.",
        ]
    )
