"""Dirty curves from files: every form that is written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from tests.support.harness import tool
from tools.forecast.sources.curve_file import read_curve
from tools.forecast.sources.curve_points import CurveError, curve_of, merged, rounds_seen

RAM = 64 << 20
PAGES = RAM >> 12
PLAIN = {"seconds": [0.5, 1, 2], "pages": [10, [20, 24], 40]}


def written(tmp_path: Path, what: Any) -> Path:
    path = tmp_path / "curve"
    path.write_text(what if isinstance(what, str) else json.dumps(what))
    return path


def points(tmp_path: Path, what: Any) -> list[tuple[float, tuple[int, ...]]]:
    _, curve = read_curve("--dirty-curve", written(tmp_path, what), RAM)
    return list(zip(curve.seconds, curve.pages, strict=True))


def test_every_form_is_the_same_curve(tmp_path: Path) -> None:
    wanted = [(0.5, (10,)), (1.0, (20, 24)), (2.0, (40,))]
    assert points(tmp_path, PLAIN) == wanted
    assert points(tmp_path, "seconds,pages\n0.5,10\n1,20\n1,24\n\n2,40\n") == wanted
    assert points(tmp_path, "0.5,10\n1,20\n1,24\n2,40\n") == wanted
    row = {"pages_min": 9, "pages_median": 10, "pages_max": 12, "share_of_ram": 0.1}
    dirtyrate = {"size_bytes": RAM, "curve": [{**row, "seconds": 0.5, "samples": 3}]}
    assert points(tmp_path, dirtyrate) == [(0.5, (9, 10, 12))]
    dirtyrate["curve"] = [{**row, "seconds": 0.5, "samples": 1}]
    assert points(tmp_path, dirtyrate) == [(0.5, (10,))]


def test_what_this_command_wrote_is_taken_with_its_shares(tmp_path: Path) -> None:
    guest = {"ram_bytes": RAM, "written_zero_share": 0.25, "cpus": 0.5, "curve": PLAIN}
    file, _ = read_curve("--dirty-curve", written(tmp_path, {"forecasts": [], "guest": guest}), RAM)
    assert (file.ram_bytes, file.written_zero_share, file.cpus) == (RAM, 0.25, 0.5)


def test_rounds_of_a_run_are_points_by_how_long_they_took(tmp_path: Path) -> None:
    base = {"paused": False, "throttle_percent": 0}
    rounds = [
        {**base, "duration_ms": 2000, "dirty_pages": 400},
        {**base, "duration_ms": 500, "dirty_pages": 100},
        {**base, "duration_ms": 550, "dirty_pages": 120},
        {**base, "duration_ms": 2000, "dirty_pages": 210, "throttle_percent": 50},
        {**base, "duration_ms": 99, "dirty_pages": 0, "paused": True},
    ]
    wanted: list[Any] = [
        (pytest.approx(0.525), (100, 120)),
        (pytest.approx(1.0), (210,)),
        (pytest.approx(2.0), (400,)),
    ]
    assert merged(rounds_seen(rounds)) == wanted
    found = points(tmp_path, {"rounds": rounds, "options": {"size_bytes": RAM}})
    assert len(found) == 3


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("", "0 points"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[1]", "is no dirty curve"),
        ("a,b\n1,2", "is not two numbers"),
        ("1,2,3", "is not two numbers"),
        ("nan,2", "not a finite number"),
        ("1,inf", "not a finite number"),
        ("0,2", "must be above 0 and rise"),
        ("2,2\n1,2", "must be above 0 and rise"),
        ("-1,2", "must be 0 to"),
        ("1,-2", "must be 0 to"),
        ("1,20\n2,10", "does not fall"),
        (f"1,{PAGES + 1}", f"more than the {PAGES}"),
        ("1e9,2", "must be 0 to 86400"),
        ({"seconds": [1]}, "is no dirty curve"),
        ({"seconds": [1], "pages": [1, 2]}, "lists of one length"),
        ({"seconds": [1], "pages": [True]}, "not a finite number"),
        ({"seconds": ["1"], "pages": [1]}, "not a finite number"),
        ({"seconds": [1], "pages": [[]]}, "0 samples"),
        ({"seconds": [1], "pages": [[[1]]]}, "not a finite number"),
        ({"seconds": [1], "pages": [1], "colour": "red"}, "unknown"),
        ({"seconds": [1], "pages": [1], "written_zero_share": 2}, "must be 0 to 1"),
        ({"seconds": [1], "pages": [1], "ram_bytes": "big"}, "not a finite number"),
        ('{"seconds": [NaN], "pages": [1]}', "not a finite number"),
        ({"rounds": 3, "options": {"size_bytes": 1}}, "is no dirty curve"),
        ({"rounds": [], "options": {"size_bytes": 1}}, "0 points"),
        ({"curve": [{}], "size_bytes": 1}, "is no dirty curve"),
        ({"forecasts": [], "guest": {}}, "is no dirty curve"),
    ],
)
def test_what_is_no_curve_is_said_in_a_line(what: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--dirty-curve") as raised:
        points(tmp_path, what)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, said in ((tmp_path, "is no regular file"), (tmp_path / "none", "no such file")):
        with pytest.raises(UsageError, match=said):
            read_curve("--dirty-curve", path, RAM)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not text"):
        read_curve("--dirty-curve", tmp_path / "binary", RAM)


@given(st.lists(st.tuples(st.floats(0.001, 1000), st.integers(0, PAGES)), max_size=30))
def test_merged_points_rise_in_time_and_keep_every_sample(found: list[tuple[float, int]]) -> None:
    made = merged(found)
    assert sum(len(pages) for _, pages in made) == len(found)
    assert [at for at, _ in made] == sorted({at for at, _ in made})
    try:
        curve = curve_of(made, PAGES)
    except CurveError:
        return
    assert len(curve.seconds) == len(made)


def test_no_writer_runs_for_a_guest_whose_curve_is_known(tmp_path: Path) -> None:
    path = written(tmp_path, "1,500\n2,900\n")
    arguments = ("--size", "64M", "--dirty-curve", str(path), "--bandwidth", "100Mbit", "--channels", "1")
    ended = tool("tools.forecast", *arguments, "--json", str(tmp_path / "json"))
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "json").read_text())
    assert found["guest"]["curve"] == {"seconds": [1.0, 2.0], "pages": [[500], [900]]}
    assert found["guest"]["written_zero_share"] == found["guest"]["zero_share"]
    assert "what is written is taken to hold" in found["notes"][0]
    for wrong in (("--dirty-rate", "1M"), ("--preset", "build"), ("--attach", "x"), ("--qmp", "x")):
        ended = tool("tools.forecast", "--dirty-curve", str(path), *wrong)
        assert ended.returncode == 2, wrong
        assert "leave this out" in ended.stderr
