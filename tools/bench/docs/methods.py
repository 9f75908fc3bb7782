"""Sections on methods: each by itself in QEMU's columns, and what prealloc buys."""

from __future__ import annotations

from functools import partial
from typing import Any

from pipeline.options import AUTO
from pipeline.report.columns import method_of
from pipeline.report.markdown import table
from tools.bench.docs.section import Section
from tools.bench.request import BenchRequest, here
from tools.measuring.columns import TITLES, cells, spread_of
from tools.measuring.trial import run_ours
from tools.measuring.turns import in_turn

METHODS = ("none", "lz4", "isal", "zstd", "qatzip", "zlib", AUTO)
PREALLOC_METHODS = ("none", "lz4", "zstd", "qatzip")


def available(methods: tuple[str, ...]) -> list[str]:
    """Those of `methods` that this host can run."""
    return [name for name in methods if name == AUTO or here(name)]


def _run(request: BenchRequest, method: str, *more: str) -> dict[str, Any]:
    arguments = ["--dirty-rate", "0", "--method", method, "--channels", str(request.channels), *more]
    return run_ours([*request.ram_arguments(), *arguments]).result


def _measure(request: BenchRequest) -> dict[str, Any]:
    runs = {name: partial(_run, request, name, "--prealloc") for name in available(METHODS)}
    return {"results": in_turn(request.repeat, runs)}


def _tables(document: dict[str, Any]) -> str:
    rows = [
        [method_of(results[0]), str(results[0]["options"]["channels"]), *cells(results)]
        for results in document["results"].values()
    ]
    return table([["method", "channels", *TITLES], *rows])


def _measure_prealloc(request: BenchRequest) -> dict[str, Any]:
    options: dict[str, list[str]] = {"on": ["--prealloc"], "off": []}
    runs = {
        f"{name} {word}": partial(_run, request, name, *more)
        for name in available(PREALLOC_METHODS)
        for word, more in options.items()
    }
    return {"results": in_turn(request.repeat, runs)}


def _prealloc_tables(document: dict[str, Any]) -> str:
    rows = [["method", "prealloc", "total ms", "recv CPU %", "recv CPU s", "page faults of receivers"]]
    for name, results in document["results"].items():
        word = name.split()[1]
        rows.append(
            [
                method_of(results[0]),
                word,
                spread_of(results, "time", "total_ms").show(),
                f"{spread_of(results, 'recv', 'cpu_percent').median:.0f}",
                f"{spread_of(results, 'recv', 'cpu_seconds').median:.2f}",
                f"{spread_of(results, 'recv', 'minor_faults').median:,.0f}",
            ]
        )
    every = [result for results in document["results"].values() for result in results]
    took = max(spread_of(every, "time", "prealloc_ms").values)
    return f"{table(rows)}\n\nPrealloc itself comes before the clock starts, and took up to {took:.0f} ms."


SECTIONS = (
    Section(
        "methods",
        "Methods",
        "An idle guest, without a bandwidth limit, into preallocated memory, through shared memory on one "
        "host. The columns are those of QEMU's multifd documentation.",
        _measure,
        _tables,
    ),
    Section(
        "prealloc",
        "What prealloc buys",
        "Memory gets a page on first touch, and the touch costs more than the copy. With `--prealloc` the "
        "destination touches its pages before the clock starts.",
        _measure_prealloc,
        _prealloc_tables,
    ),
)
