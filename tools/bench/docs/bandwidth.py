"""The section on bandwidth, and the README's chart of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from guestmem.units import show_rate
from guestmem.workload import parse_rate
from pipeline.options import AUTO
from pipeline.report.columns import method_of
from pipeline.report.files import save_text
from pipeline.report.markdown import table
from qat.host import device_records
from tools.bench.auto import limited
from tools.bench.docs.methods import available
from tools.bench.docs.section import Section
from tools.bench.request import BANDWIDTHS, BenchRequest
from tools.measuring.bandwidth_chart import bandwidth_chart
from tools.measuring.break_even import Lines, break_evens
from tools.measuring.charts import WIDE
from tools.measuring.columns import spread_of
from tools.measuring.sizes import size_argument
from tools.measuring.theme import DARK, LIGHT, standalone
from tools.measuring.turns import in_turn

CHARTS = {"total-time-light.svg": LIGHT, "total-time-dark.svg": DARK}


def _measure(request: BenchRequest) -> dict[str, Any]:
    # Without a device qatzip is isal's library in a member of another format.
    device = "qatzip" if device_records() else "isal"
    runs = {
        f"{method} {bandwidth}": partial(_run, request, bandwidth, method)
        for bandwidth in BANDWIDTHS
        for method in available(("none", "lz4", device, "zstd", AUTO))
    }
    return {"results": in_turn(request.repeat, runs)}


def _run(request: BenchRequest, bandwidth: str, method: str) -> dict[str, Any]:
    return limited(request.ram_arguments(), bandwidth, method, request.channels).result


def lines_of(document: dict[str, Any]) -> Lines:
    """Median total ms over bandwidth, a line a method."""
    lines: Lines = {}
    for name, results in document["results"].items():
        bandwidth = name.split()[1]
        total = spread_of(results, "time", "total_ms").median
        lines.setdefault(method_of(results[0]), []).append((parse_rate(bandwidth), total))
    return lines


def _fixed(lines: Lines) -> Lines:
    """Auto is in no break-even: it changes along with the fastest method."""
    return {name: line for name, line in lines.items() if name.split()[0] != AUTO}


def _tables(document: dict[str, Any]) -> str:
    rows: dict[str, dict[str, str]] = {}
    for name, results in document["results"].items():
        bandwidth = name.split()[1]
        total = spread_of(results, "time", "total_ms")
        rows.setdefault(bandwidth, {})[method_of(results[0])] = total.show()
    head = list(dict.fromkeys(method for row in rows.values() for method in row))
    cells = [
        ["no limit" if bandwidth == "0" else show_rate(bandwidth), *(row.get(name, "-") for name in head)]
        for bandwidth, row in rows.items()
    ]
    found = [f"- {one.words}" for one in break_evens(_fixed(lines_of(document)))]
    even = ["", "Where the fastest fixed method changes:", "", *found] if found else []
    return "\n".join(
        [
            f"Total ms, guest of {size_argument(document['guest_bytes'])}.",
            "",
            table([["bandwidth", *head], *cells]),
            *even,
            "",
            "![Total time by bandwidth](total-time-light.svg)",
        ]
    )


def draw(document: dict[str, Any]) -> dict[str, str]:
    """The chart in both themes, by file name."""
    lines = lines_of(document)
    rates = [name.split()[1] for name in document["results"]]
    chart = bandwidth_chart(lines, rates)
    assert chart is not None, "the suite has more than one bandwidth"
    size = size_argument(document["guest_bytes"])
    title = f"Time to move a guest of {size} by bandwidth of the link"
    host = document["host"]
    channels = next(iter(document["results"].values()))[0]["options"]["channels"]
    where = f"{host['cpu_model']}, {host['cpus']} CPUs, {channels} channels, {document['measured_on']}"
    svg = chart.draw(title, WIDE, tuple(break_evens(_fixed(lines))), (title, f"{where}. Lower is better."))
    return {name: standalone(svg, theme) for name, theme in CHARTS.items()}


def write_charts(document: dict[str, Any], folder: Path) -> None:
    """The chart's files. Raises OSError."""
    for name, svg in draw(document).items():
        save_text(svg, folder / name)


SECTIONS = (
    Section(
        "bandwidth",
        "Total time by bandwidth",
        "An idle guest over links of different speeds, with preallocated memory. Below a break-even "
        "bandwidth the stronger method wins, above it the faster one.",
        _measure,
        _tables,
        share=0.25,
    ),
)
