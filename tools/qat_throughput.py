"""`python -m tools.qat_throughput`: what the QAT device of this host does, one setting at a time.

    python -m tools.qat_throughput --plot qat.svg
    python -m qat.emulator -- python -m tools.qat_throughput      on the emulated device

Around a base (512 KiB blocks, 64 KiB requests, one process, periodical polling, level 1, ordinary
memory) each setting is varied by itself; CPU codecs do the same blocks in one process.
"""

from __future__ import annotations

if __name__ == "__main__":  # in front of imports that take time, in which a signal may come
    import sys

    from pipeline.cli.main import execute

    sys.exit(execute("tools.qat_throughput", sys.argv[1:]))

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam
from pipeline.cli.main import Command, show
from pipeline.cli.parser import Parser
from pipeline.cli.values import Given
from pipeline.codecs import METHODS, library_versions
from pipeline.codecs.method import CodecSettings
from pipeline.errors import CodecUnavailable, HostError, UsageError
from pipeline.report.files import save_json, save_text
from pipeline.report.host import host_record
from pipeline.report.markdown import table
from qat.probe import ANSWERED, probe
from tools.measuring import charts, theme
from tools.measuring.images import fill_corpus
from tools.measuring.progress import say
from tools.measuring.provenance import host_line
from tools.qat_load import ORDINARY, PINNED, Figures, Load, measure

SCHEMA_VERSION = 1
KIB = 1 << 10
DATA_BYTES = 32 << 20
BLOCKS = (4, 16, 64, 256, 512)
REQUESTS = (16, 64, 128, 512)
LEVELS = (1, 6, 9)
PROCESSES = (1, 2, 4, 8, 12, 16, 20, 24, 32, 48, 64)
CPU_CODECS = (("lz4", 1), ("isal", 1), ("zstd", 1), ("zlib", 1))


def build_parser(program: str) -> Parser:
    """All options, with units and defaults."""
    parser = Parser(program, "Measure a QAT device: throughput, latency, CPU, and where it is full.", 1)
    add = parser.add_argument
    add("--fill", metavar="PATH", help="file or folder to compress (default: the files of this Python)")
    add("--seconds", metavar="S", help="load in each direction a row, up to 60 (default 1)")
    add("--max-processes", metavar="N", help="processes at most, 1 to 64 (default 20)")
    add("--json", metavar="FILE", help="write all figures as JSON; - is standard output (default none)")
    add("--plot", metavar="FILE", help="write throughput by processes as SVG (default none)")
    return parser


def sweeps(base: Load, most: int) -> Iterator[tuple[str, str, Load]]:
    """(setting, value, load): the base, then one setting at a time."""
    yield "base", "512K, 64K, 1", base
    for kib in BLOCKS:
        block = kib * KIB
        yield "block", f"{kib}K", replace(base, block_bytes=block, hw_buff_sz=min(base.hw_buff_sz, block))
    for kib in REQUESTS:
        yield "hw_buff_sz", f"{kib}K", replace(base, hw_buff_sz=kib * KIB)
    for level in LEVELS:
        yield "level", str(level), replace(base, level=level)
    for polling in ("periodical", "busy"):
        yield "polling", polling, replace(base, polling=polling)
    for memory in (ORDINARY, PINNED):
        yield "memory", memory, replace(base, memory=memory)
    for count in PROCESSES:
        if count <= most:
            yield "processes", str(count), replace(base, processes=count)


def blocks_to_compress(fill: str | None) -> bytes:
    """DATA_BYTES of a corpus."""
    ram = GuestRam.create(DATA_BYTES + DATA_BYTES // 15 // PAGE_BYTES * PAGE_BYTES + PAGE_BYTES, "load")
    fill_corpus(ram, None if fill is None else Path(fill))
    return bytes(ram.memory[:DATA_BYTES])


def cpu_codec(name: str, level: int, data: bytes, block_bytes: int, seconds: float) -> dict[str, Any]:
    """One CPU codec on the same blocks, in this process. Raises CodecUnavailable."""
    method, settings = METHODS[name], CodecSettings(level=level)
    encoder, decoder = method.open_encoder(settings), method.open_decoder(settings)
    room = memoryview(bytearray(2 * block_bytes))
    plain = memoryview(bytearray(block_bytes))
    blocks = [memoryview(data)[at : at + block_bytes] for at in range(0, len(data), block_bytes)]
    spent, back, done, packed = 0.0, 0.0, 0, 0
    while spent < seconds:
        block = blocks[done % len(blocks)]
        began = time.thread_time()
        length = encoder.compress(block, room)
        middle = time.thread_time()
        if length < block_bytes:
            decoder.decompress(room[:length], plain)
        back += time.thread_time() - middle
        spent += middle - began
        done, packed = done + 1, packed + min(length, block_bytes)
    total = done * block_bytes
    return {
        "codec": f"{name} {level}",
        "compress_mb_s": total / spent / 1e6,
        "decompress_mb_s": total / back / 1e6,
        "cpu_s_per_gb": spent / (total / 1e9),
        "ratio": total / packed,
    }


def collect(data: bytes, seconds: float, most: int) -> dict[str, Any]:
    """Measure all rows. Raises HostError where no device answers, RunFailed."""
    answer = probe()
    if answer != ANSWERED:
        raise HostError(f"no QAT device answers ({answer}): python -m tools.doctor says what would mend it")
    rows: list[dict[str, Any]] = []
    for setting, value, load in sweeps(Load(seconds=seconds), most):
        figures: Figures = measure(load, data)
        rows.append({"setting": setting, "value": value, "load": asdict(load), "figures": asdict(figures)})
        say(f"{setting} {value}: {figures.compress_mb_s:.0f} MB/s")
    codecs = []
    for name, level in CPU_CODECS:
        try:
            codecs.append(cpu_codec(name, level, data, Load().block_bytes, seconds))
        except CodecUnavailable as error:
            say(str(error))
    return {"rows": rows, "cpu_codecs": codecs, "simulated": any(r["figures"]["simulated"] for r in rows)}


def render(document: dict[str, Any]) -> str:
    """Two tables: the device by setting, and the CPU's codecs."""
    head = ["setting", "value", "compress MB/s", "p50 us", "p99 us", "decompress MB/s", "p50 us", "p99 us"]
    out = [[*head, "CPU s/GB", "ratio", "hardware", "software"]]
    for row in document["rows"]:
        f = row["figures"]
        out.append(
            [
                row["setting"],
                row["value"],
                *(f"{f[key]:.0f}" for key in ("compress_mb_s", "compress_p50_us", "compress_p99_us")),
                *(f"{f[key]:.0f}" for key in ("decompress_mb_s", "decompress_p50_us", "decompress_p99_us")),
                *(f"{f['cpu_s_per_gb']:.2f}", f"{f['ratio']:.2f}"),
                *(str(f["hardware_calls"]), str(f["software_calls"])),
            ]
        )
    cpu = [["CPU codec, one process", "compress MB/s", "decompress MB/s", "CPU s/GB", "ratio"]]
    for one in document["cpu_codecs"]:
        cpu.append(
            [
                one["codec"],
                *(f"{one[key]:.0f}" for key in ("compress_mb_s", "decompress_mb_s")),
                *(f"{one[key]:.2f}" for key in ("cpu_s_per_gb", "ratio")),
            ]
        )
    mark = (
        ["SIMULATED: the device is qat.emulator, no figure is of hardware.", ""]
        if document["simulated"]
        else []
    )
    return "\n".join(
        [host_line(document), "", *mark, table(out), "", table(cpu), "", *_cliff(document["rows"])]
    )


def _cliff(rows: list[dict[str, Any]]) -> list[str]:
    """Where more processes than instances begin to run in software."""
    for row in rows:
        if row["setting"] == "processes" and row["figures"]["processes_in_software"]:
            count = row["figures"]["processes_in_software"]
            return [f"With {row['value']} processes {count} got no instance and worked in software (ISA-L)."]
    return ["No process was left without an instance."]


def plot(document: dict[str, Any]) -> str:
    """Throughput by processes, as an SVG document of its own."""
    points: dict[str, list[tuple[float, float]]] = {"compress": [], "decompress": []}
    for row in document["rows"]:
        if row["setting"] == "processes":
            for direction in points:
                rate = row["figures"][f"{direction}_mb_s"]
                points[direction].append((float(row["value"]), rate))
    highest = max(rate for line in points.values() for _, rate in line)
    counts = [count for count, _ in points["compress"]]
    x = charts.Axis(
        "processes", tuple((n, f"{n:.0f}") for n in counts), counts[0], max(counts[-1], counts[0] + 1)
    )
    title = "QAT throughput by processes" + (" (simulated)" if document["simulated"] else "")
    svg = charts.line_chart(title, x, charts.linear("MB/s", highest), points)
    return theme.standalone(svg, theme.LIGHT)


def run(given: Given, command: list[str]) -> int:
    """Measure, print, and return the exit code."""
    seconds = given.above_zero("seconds", 60, "seconds", 1.0)
    most = given.whole("max_processes", 1, 64, 20)
    target, plot_file = given.new_file("json"), given.new_file("plot")
    fill = given.text("fill")
    if fill is not None and not Path(fill).exists():
        raise UsageError(f"--fill {fill}: no such file or folder")
    document = {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "host": host_record(library_versions()),
        **collect(blocks_to_compress(fill), seconds, most),
    }
    if target is not None:
        save_json(document, target)
    if target != "-":
        show(render(document))
    if plot_file is not None:
        save_text(plot(document), Path(plot_file))
    return 0


COMMAND = Command(build_parser, run)
