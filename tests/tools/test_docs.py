"""The suite that writes docs/measurements.md: its page, its chart, its network, and a short run of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UsageError
from tests.support.harness import tool
from tests.tools.browser import faults
from tools.bench import network
from tools.bench.docs import SECTIONS, bandwidth
from tools.bench.docs.document import NAME, Measurements
from tools.bench.docs.section import noise
from tools.measuring.charts import Axis, Mark, line_chart
from tools.measuring.sizes import size_argument
from tools.measuring.theme import LIGHT, standalone

LONG = ("auto", "auto-links", "auto-device", "relay", "scale", "deltas", "forecast", "fleet")
"""Sections of many minutes, whatever the guest's size."""


def run(method: str, total_ms: float, **options: Any) -> dict[str, Any]:
    """As much of a result as the chart looks at."""
    qat = {"simulated": False, "hardware_requests": 0, "software_requests": 0}
    options = {"method": method, "level": None if method in ("none", "auto") else 1, "channels": 2, **options}
    return {"options": options, "qat": qat, "time": {"total_ms": total_ms}}


MIB = 2**20
COST = {"none": (1.0, 30.0), "lz4": (0.5, 350.0), "isal": (0.36, 600.0), "zstd": (0.3, 400.0)}
"""Wire bytes per guest byte, and ms that the CPUs take."""


def measured() -> dict[str, Any]:
    """A section of figures by arithmetic: the wire or the CPUs, whichever is slower."""
    results: dict[str, list[dict[str, Any]]] = {}
    for rate in (25, 50, 100, 200, 400, 800, 0):
        times = {name: max(wire * 256 / rate * 1e3 if rate else 0, cpu) for name, (wire, cpu) in COST.items()}
        times["auto"] = min(times.values())
        for name, time in times.items():
            results[f"{name} {rate}M" if rate else f"{name} 0"] = [run(name, time), run(name, time * 1.1)]
    host = {"cpu_model": "A <CPU> & more", "cpus": 2, "memory_bytes": 1 << 34, "qat_devices": []}
    return {
        "results": results,
        "guest_bytes": 256 * MIB,
        "host": {**host, "kernel": "6.1", "python": "3.11"},
        "measured_on": "2026-01-31",
        "repeat": 2,
        "command": ["python", "-m", "tools.bench"],
    }


def test_a_section_that_was_not_measured_keeps_its_text(tmp_path: Path) -> None:
    page = Measurements(tmp_path / "docs", ["one", "two", "three"])
    page.put("three", "## Third\n\ntext of three")
    page.put("one", "## First (of all)\n\ntext of one")
    text = (tmp_path / "docs" / NAME).read_text()
    strange = "\n<!-- section: strange -->\n## Strange\n\nnobody here knows it\n"
    (tmp_path / "docs" / NAME).write_text(text + strange)
    Measurements(tmp_path / "docs", ["one", "two", "three"]).put(
        "one", "## First (of all)\n\nnew text of one"
    )
    text = (tmp_path / "docs" / NAME).read_text()
    assert re.findall(r"<!-- section: (\w+) -->", text) == ["one", "three", "strange"]
    assert "text of three" in text
    assert "nobody here knows it" in text
    assert text.count("text of one") == 1
    assert "- [First (of all)](#first-of-all)" in text
    assert len(list((tmp_path / "docs").iterdir())) == 1


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--output"):
        Measurements(tmp_path / "file", [])


def test_the_chart_marks_where_the_fastest_method_changes(tmp_path: Path) -> None:
    charts = bandwidth.draw(measured())
    assert set(charts) == {"total-time-light.svg", "total-time-dark.svg"}
    for svg in charts.values():
        root = ElementTree.fromstring(svg)
        texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
        assert {"none", "lz4 1", "isal 1", "zstd 1", "auto", "no limit"} <= set(texts)
        marks = [text for text in texts if text and "\u2192" in text]
        assert [mark.split(":")[0] for mark in marks] == ["zstd 1 \u2192 lz4 1", "lz4 1 \u2192 none"]
        assert "var(--" not in svg
        assert "A <CPU> & more, 2 CPUs, 2 channels, 2026-01-31. Lower is better." in texts
    light, dark = charts.values()
    assert light != dark
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><body style='margin: 0; width: 720px'>{light}{dark}</body>")
    assert faults(page, tmp_path, 720) == []


def test_labels_of_marks_close_together_do_not_overlap(tmp_path: Path) -> None:
    axis = Axis("bandwidth", ((1.0, "1"), (1000.0, "1000")), 1.0, 1000.0, logarithmic=True)
    marks = tuple(
        Mark(x, 500.0, f"one method \u2192 another: {x:.0f} MiB/s") for x in (1.2, 90.0, 100.0, 130.0)
    )
    svg = line_chart("close", axis, axis, {"line": [(1.0, 900.0), (1000.0, 400.0)]}, marks=marks)
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><body style='margin: 0; width: 720px'>{standalone(svg, LIGHT)}</body>")
    assert faults(page, tmp_path, 720) == []


def test_noise_is_said_with_its_worst_case() -> None:
    assert "10%" in noise(measured())
    assert "One repetition" in noise({**measured(), "repeat": 1})


@pytest.mark.parametrize(("size", "text"), [(1 << 30, "1G"), (384 << 20, "384M"), (4096, "4K"), (5, "5")])
def test_sizes_are_what_an_option_takes(size: int, text: str) -> None:
    assert size_argument(size) == text


def test_a_network_leaves_nothing_behind() -> None:
    if why := network.why_not():
        pytest.skip(why)
    with network.cable() as wire:
        wire.speed(100)
        names = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
        assert names.count(f"ramferry-{os.getpid()}-") == 2
        show = [*wire.source, "tc", "qdisc", "show", "dev", "cable"]
        assert "100Mbit" in subprocess.run(show, capture_output=True, text=True, check=True).stdout
    names = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert f"ramferry-{os.getpid()}-" not in names


def test_a_short_run_of_the_suite(tmp_path: Path, corpus: Path) -> None:
    output, target = tmp_path / "docs", tmp_path / "docs.json"
    options = ("--suite", "docs", "--size", "16M", "--repeat", "1", "--fill", str(corpus))
    what = ("--output", str(output), "--sections", "methods,prealloc", "--json", str(target))
    ended = tool("tools.bench", *options, *what)
    assert ended.returncode == 0, ended.stderr
    text = (output / NAME).read_text()
    assert [name for name in SECTIONS if f"<!-- section: {name} -->" in text] == ["methods", "prealloc"]
    for words in ("| zlib 1 ", "| auto ", "Measured 20", "One repetition", "--sections prealloc --size 16M"):
        assert words in text.replace("\n", " ")
    assert max(len(line) for line in text.splitlines() if line[:1] not in ("|", " ")) <= 110
    document = json.loads(target.read_text())
    assert document["sections"]["methods"]["results"]["none"][0]["status"] == "completed"


@pytest.mark.long
def test_every_section_can_be_measured(tmp_path: Path, corpus: Path) -> None:
    names = ",".join(name for name in SECTIONS if name not in LONG)
    options = ("--suite", "docs", "--size", "16M", "--repeat", "1", "--fill", str(corpus))
    ended = tool("tools.bench", *options, "--output", str(tmp_path), "--sections", names, seconds=600)
    assert ended.returncode == 0, ended.stderr
    for name in ("total-time-light.svg", "total-time-dark.svg", NAME):
        assert (tmp_path / name).stat().st_size > 1000
