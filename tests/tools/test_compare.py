"""The comparison: scenarios, what is judged of them, and the report in a browser."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UsageError
from tests.support.emulated import emulator
from tests.support.harness import tool
from tests.tools.browser import dump, faults
from tools.compare import published
from tools.compare.comparison import Place, doubts, winner
from tools.compare.scenario import Point, load, names
from tools.measuring.break_even import break_evens, crossings

SMALL = """
title = "small"
size = "8M"
repetitions = 2
methods = ["none", "zstd", "qatzip"]
bandwidths = ["20M", "0"]
channels = [1, 2]
[[extra]]
methods = ["none"]
channels = [1]
bandwidths = ["0"]
prealloc = [false]
"""

FULL = """
title = "full: every picture and table"
size = "8M"
repetitions = 1
methods = ["none", "lz4", "isal", "zstd", "qatzip", "auto"]
levels = [1, 3]
bandwidths = ["40M", "800M"]
[[extra]]
methods = ["none", "zstd", "qatzip"]
levels = [1]
bandwidths = ["0"]
channels = [1, 2, 4]
[[extra]]
methods = ["none", "qatzip"]
levels = [1]
bandwidths = ["0"]
prealloc = [false]
[[extra]]
methods = ["zstd"]
levels = [1]
bandwidths = ["8M"]
dirty_rates = ["16M"]
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def test_ours_can_be_loaded() -> None:
    assert names() == ["bytedance", "intel", "qemu-docs", "quick"]
    for name in names():
        found = load(name)
        assert found.points()
        assert found.size_bytes >= 128 << 20
    assert {point.channels for point in load("bytedance").points()} == {4, 8, 16}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("size = '8M'", "title is missing"),
        (SMALL + "\nwheels = 4", "wheels"),
        (SMALL.replace('"zstd"', '"gzip"'), "gzip"),
        (SMALL.replace("[1, 2]", "[0]"), "channels"),
        (SMALL.replace("[1, 2]", "2"), "must be a list"),
        (SMALL.replace('"20M"', '"fast"'), "rate fast"),
        (SMALL.replace('"20M"', "20"), "quotes"),
        (SMALL.replace('"8M"', '"7"'), "size"),
        (SMALL.replace("repetitions = 2", "repetitions = 0"), "repetitions"),
        ("title = [", "scenario"),
    ],
)
def test_a_scenario_that_is_wrong_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        load(str(path))
    ended = tool("tools.compare", str(path), "--output", str(tmp_path / "out"))
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1


def test_levels_only_where_a_method_has_them(tmp_path: Path) -> None:
    path = tmp_path / "levels.toml"
    path.write_text(
        'title = "l"\nsize = "8M"\nmethods = ["none", "zstd", "auto"]\nlevels = [1, 19]\nrepetitions = 1'
    )
    found = [point.method_name for point in load(str(path)).points()]
    assert found == ["none", "zstd 1", "zstd 19", "auto"]


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href") or (value or "").startswith("http"):
                self.outside.append(f"{tag} {name}={value}")


def test_a_comparison_is_made_resumed_and_reported(scenario: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = tool("tools.compare", str(scenario), "--output", str(output), "--filter", "zstd*")
    assert first.returncode == 0, first.stderr
    assert len(list((output / "points").glob("*.json"))) == 8
    kept = {path.name: path.stat().st_mtime_ns for path in (output / "points").glob("*.json")}
    ended = tool("tools.compare", str(scenario), "--output", str(output), "--published")
    assert ended.returncode == 0, ended.stderr
    assert "8 of 26 points are there already" in ended.stderr
    assert re.search(r"\[1/18\] .*left", ended.stderr)
    for name, stamp in kept.items():
        assert (output / "points" / name).stat().st_mtime_ns == stamp
    document = json.loads((output / "compare.json").read_text())
    assert len(document["points"]) == 26
    rows = list(csv.DictReader((output / "points.csv").open()))
    assert len(rows) == 26
    assert {row["status"] for row in rows} == {"completed"}
    markdown = (output / "report.md").read_text()
    for words in ("Fastest:", "total ms", "qatzip 1 (software)", "Beside what was published", "cover letter"):
        assert words in markdown
    assert "fewer than 3 repetitions" in markdown
    page = (output / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert links.outside == []
    for title in (
        "Total time by bandwidth",
        "Time by channels",
        "What prealloc buys",
        "Which method on this link?",
    ):
        assert title in page
    again = tool("tools.compare", str(scenario), "--output", str(output))
    assert again.returncode == 0
    assert "[1/" not in again.stderr


def test_points_of_an_earlier_version_are_read_and_of_a_later_one_refused(
    scenario: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    options = ("--output", str(output), "--channels", "1", "--repetitions", "1", "--methods", "zstd,auto")
    assert tool("tools.compare", str(scenario), *options).returncode == 0
    paths = sorted((output / "points").glob("*.json"))
    for path in paths:
        document = json.loads(path.read_text())
        if document["auto"]:
            document["auto"]["rungs"] = document["auto"].pop("candidates")
        document["transport"]["kept"] = None
        path.write_text(json.dumps({**document, "schema_version": 1}))
    again = tool("tools.compare", str(scenario), *options)
    assert again.returncode == 0, again.stderr
    assert f"{len(paths)} of {len(paths)} points are there already" in again.stderr
    assert "auto" in again.stdout
    paths[0].write_text(json.dumps({**json.loads(paths[0].read_text()), "schema_version": 3}))
    refused = tool("tools.compare", str(scenario), *options)
    assert refused.returncode == 2
    assert "schema_version 3" in refused.stderr


def test_another_comparison_is_not_overwritten(scenario: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    options = ("--output", str(output), "--methods", "none", "--channels", "1", "--repetitions", "1")
    assert tool("tools.compare", str(scenario), *options).returncode == 0
    other = tool("tools.compare", str(scenario), *options, "--size", "4M")
    assert other.returncode == 2
    assert "--force" in other.stderr
    assert tool("tools.compare", str(scenario), *options, "--size", "4M", "--force").returncode == 0
    assert (
        json.loads((output / "compare.json").read_text())["points"][0]["result"]["options"]["size_bytes"]
        == 4 << 20
    )
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "letter").write_text("mine")
    refused = tool("tools.compare", str(scenario), "--output", str(stranger))
    assert refused.returncode == 2
    assert tool("tools.compare", str(scenario), "--filter", "nothing*").returncode == 2


def test_an_emulated_device_is_never_taken_for_hardware(scenario: Path, tmp_path: Path) -> None:
    options = (
        "--output",
        str(tmp_path / "out"),
        "--methods",
        "qatzip",
        "--channels",
        "1",
        "--repetitions",
        "1",
    )
    with emulator() as (environment, _):
        ended = tool("tools.compare", str(scenario), *options, environment=environment)
    assert ended.returncode == 0, ended.stderr
    assert "(simulated)" in ended.stdout


def test_throughput_of_a_device(tmp_path: Path, corpus: Path) -> None:
    plot, target = tmp_path / "qat.svg", tmp_path / "qat.json"
    options = ("--seconds", "0.05", "--max-processes", "4", "--fill", str(corpus))
    with emulator("--instances", "2") as (environment, _):
        ended = tool(
            "tools.qat_throughput",
            *options,
            "--json",
            str(target),
            "--plot",
            str(plot),
            environment=environment,
        )
    assert ended.returncode == 0, ended.stderr
    document = json.loads(target.read_text())
    assert document["simulated"] is True
    assert "SIMULATED" in ended.stdout
    by_count = {r["value"]: r["figures"] for r in document["rows"] if r["setting"] == "processes"}
    assert by_count["2"]["processes_in_software"] == 0
    assert by_count["4"]["processes_in_software"] == 2
    assert "With 4 processes 2 got no instance" in ended.stdout
    assert {r["setting"] for r in document["rows"]} == {
        *("base", "block", "hw_buff_sz", "level", "polling", "memory", "processes")
    }
    assert plot.read_text().startswith("<svg xmlns")
    nowhere = {"QATZIP_LIBRARY": "/nowhere/libqatzip.so.3"}
    without = tool("tools.qat_throughput", *options, environment=nowhere)
    assert without.returncode == 2
    assert "tools.doctor" in without.stderr


# ---------------------------------------------------------------- what is judged


def place(method: str, *total_ms: float, bandwidth: str = "0") -> Place:
    point = Point(method, None, 2, bandwidth, True, "0", "corpus", 1)
    result: dict[str, Any] = {
        "status": "completed",
        "options": {"method": "zstd"},
        "qat": {"hardware_requests": 0, "software_requests": 0, "simulated": False},
    }
    return Place(point, tuple({**result, "time": {"total_ms": ms}} for ms in total_ms))


def test_no_winner_inside_the_noise() -> None:
    assert "cannot be told apart" in winner([place("none", 100, 110), place("zstd", 105, 120)])
    assert (
        winner([place("none", 100, 102, 104), place("zstd", 200, 202, 204)])
        == "none, 1.98 x faster than zstd"
    )


def test_too_few_or_too_wide_is_said() -> None:
    said = doubts([place("none", 100, 101), place("zstd", 100, 101, 130)])
    assert any("fewer than 3" in one for one in said)
    assert any("spreads over 30%" in one or "spreads over 29%" in one for one in said)
    assert doubts([place("none", 100, 101, 102)]) == []


def test_lines_cross_where_both_take_the_same_time() -> None:
    lines = {"none": [(10, 1000.0), (100, 100.0)], "zstd": [(10, 300.0), (100, 300.0), (0, 1.0)]}
    (found,) = crossings(lines)
    assert found.bandwidth_bytes == pytest.approx(10 * 10 / 3, rel=0.01)
    assert (found.below, found.above) == ("zstd", "none")
    assert "below about" in found.words


def test_a_break_even_is_where_the_fastest_method_changes() -> None:
    slow = {"zlib": [(10, 900.0), (100, 310.0)], "isal": [(10, 400.0), (100, 305.0)]}
    fast = {"none": [(10, 1000.0), (100, 100.0)], "zstd": [(10, 300.0), (100, 300.0)]}
    found = break_evens({**slow, **fast})
    assert [(one.below, one.above) for one in found] == [("zstd", "none")]
    assert found[0].total_ms == pytest.approx(300)
    assert len(crossings({**slow, **fast})) > 1


def test_published_figures_are_those_of_the_sources() -> None:
    assert [len(table.rows) for table in published.TABLES] == [12, 6, 6, 3]
    cover = {(row.channels, row.method): row for row in published.TABLES[0].rows}
    assert cover[8, "qatzip"].total_ms == 16910
    assert cover[16, "zlib"].send_cpu == 1469.68


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a comparison that has every picture and every table."""
    folder = tmp_path_factory.mktemp("report")
    path = folder / "full.toml"
    path.write_text(FULL)
    ended = tool("tools.compare", str(path), "--output", str(folder / "out"), "--published")
    assert ended.returncode == 0, ended.stderr
    return folder / "out" / "report.html"


@pytest.mark.parametrize("width", [1400, 1200, 900, 400])
def test_nothing_is_cut_off_in_a_browser(report: Path, tmp_path: Path, width: int) -> None:
    assert faults(report, tmp_path, width) == []


def test_the_report_opens_in_a_browser(report: Path, tmp_path: Path) -> None:
    document = dump(report, tmp_path)
    for words in ("Which method on this link?", "Time by channels", "What prealloc buys", "Rounds over time"):
        assert words in document
    assert document.count("<polyline") >= 4
