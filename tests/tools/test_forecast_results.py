"""A forecast from the result of an earlier run."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.forecast.bands import forecast
from pipeline.forecast.situation import Plan
from pipeline.policy import PolicySettings
from tests.support.harness import tool
from tools.forecast.sources.earlier_run import read_result

PAGES = 1 << 16


def result(method: str = "zstd", level: int | None = 3) -> dict[str, Any]:
    base = {"zero_pages": 0, "throttle_percent": 0, "paused": False}
    return {
        "status": "completed",
        "options": {
            "size_bytes": PAGES << 12,
            "method": method,
            "level": level,
            "dirty_rate": 1 << 20,
            "seed": 1,
        },
        "host": {"cpus": 2, "cpu_quota": None},
        "transport": {"kind": "queue"},
        "downtime": {"last_sync_ms": 2.0},
        "send": {"cpu_seconds": 0.8},
        "recv": {"cpu_seconds": 0.4},
        "rounds": [
            {
                **base,
                "pages": PAGES,
                "normal_pages": PAGES - 6000,
                "zero_pages": 6000,
                "wire_bytes": 80 << 20,
                "duration_ms": 2000.0,
                "dirty_pages": 500,
            },
            {
                **base,
                "pages": 500,
                "normal_pages": 500,
                "wire_bytes": 1 << 20,
                "duration_ms": 25.0,
                "dirty_pages": 0,
                "paused": True,
            },
        ],
    }


def written(tmp_path: Path, what: Any) -> Path:
    path = tmp_path / "result.json"
    path.write_text(what if isinstance(what, str) else json.dumps(what))
    return path


def test_what_a_run_was_is_what_is_forecast_of_it_again(tmp_path: Path) -> None:
    seen = read_result("--result", written(tmp_path, result())).seen
    assert [one.name for one in seen.measured] == ["zstd 3"]
    assert seen.guest.zero_share == pytest.approx(6000 / PAGES)
    plan = Plan(2, 2, 40 << 20, PolicySettings())
    again = forecast(seen.guest, seen.measured[0], seen.host, plan)
    assert again.bands["total_ms"].expected == pytest.approx(2025, rel=0.05)
    assert again.bands["wire_bytes"].expected == pytest.approx(81 << 20, rel=0.02)
    assert again.bands["send_cpu_seconds"].expected == pytest.approx(0.8, rel=0.1)
    assert again.bands["recv_cpu_seconds"].expected == pytest.approx(0.4, rel=0.1)


def test_each_method_of_several_runs_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    document = {"runs": [result(), result("none", None), result(), result("auto"), result("zstd", 1)]}
    seen = read_result("--result", written(tmp_path, document)).seen
    assert [one.name for one in seen.measured] == ["none", "zstd 1", "zstd 3"]
    assert len(seen.measured[2].whole) == 2
    assert any("auto was run and is left out" in note for note in seen.notes)


def broken(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(result()), **changes}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("", "is no result"),
        ("[]", "is no result"),
        ("3", "is no result"),
        ("{}", "is no result"),
        ("[" * 100_000, "is no result"),
        ('{"runs": []}', "no run"),
        ({"status": "failed", "rounds": []}, "no round in it (failed)"),
        (result("auto"), "only method auto was run"),
        (result("qatzip"), "not modelled"),
        (result("magic"), "unknown here"),
        ({"runs": [result(), broken(options={"size_bytes": 1 << 20, "method": "none"})]}, "several sizes"),
        (broken(options={"size_bytes": -1, "method": "none"}), "must be"),
        (broken(send={"cpu_seconds": float("nan")}), "not a finite number"),
        (broken(send={"cpu_seconds": -1}), "must be"),
        (broken(host={"cpus": 0}), "must be"),
        (broken(rounds=[{**result()["rounds"][0], "dirty_pages": PAGES + 1}]), "more than the"),
        (broken(rounds=[{**result()["rounds"][0], "dirty_pages": None}]), "how the guest writes"),
        (broken(rounds=[{}]), "is no result"),
    ],
)
def test_what_is_no_result_is_said_in_a_line(what: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--result") as raised:
        read_result("--result", written(tmp_path, what))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_runs_own_document_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    arguments = ("--size", "64M", "--dirty-rate", "4M", "--method", "none,zstd", "--max-bandwidth", "50M")
    ended = tool("pipeline.run", *arguments, "--json", str(path), "--quiet")
    assert ended.returncode == 0, ended.stderr
    target = tmp_path / "forecast.json"
    ended = tool(
        *("tools.forecast", "--result", str(path), "--bandwidth", "50M", "--json", str(target)),
        *("--html", str(tmp_path / "page.html")),
    )
    assert ended.returncode == 0, ended.stderr
    assert "--size 67108864 --dirty-rate 4194304" in ended.stdout
    methods = {one["method"] for one in json.loads(target.read_text())["forecasts"]}
    assert methods == {"none", "zstd"}


def test_a_result_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({**result(), "schema_version": 1}))
    with pytest.raises(UsageError, match="schema_version 1: this version reads 2"):
        read_result("--result", path)
