"""The command forecast: a guest, a VM by its monitor, and the score of runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from guestmem.ram import GuestRam
from tests.support.harness import tool
from tests.support.two_hosts import receiver, sent
from tools.bench.forecast import slower_than_best
from tools.qemu.guest.machine import GuestMachine, GuestOptions

GUEST = "--size", "128M", "--dirty-rate", "8M"


def test_a_guest_is_forecast_by_every_method(tmp_path: Path) -> None:
    target = tmp_path / "forecast.json"
    ended = tool(
        *("tools.forecast", *GUEST, "--bandwidth", "100Mbit", "--channels", "1,2", "--json", str(target)),
        *("--html", str(tmp_path / "forecast.html")),
    )
    assert ended.returncode == 0, ended.stderr
    assert "Take " in ended.stdout
    assert "Over other links" in ended.stdout
    assert "pipeline.run --size 128M --dirty-rate 8M" in (tmp_path / "forecast.html").read_text()
    found = json.loads(target.read_text())
    by_method = {(one["method"], one["level"], one["channels"]): one for one in found["forecasts"]}
    none, zstd = by_method["none", None, 2], by_method["zstd", 1, 2]
    assert zstd["wire_bytes"]["expected"] < none["wire_bytes"]["expected"]
    assert zstd["total_ms"]["expected"] < none["total_ms"]["expected"]
    wire_ms = none["wire_bytes"]["expected"] / (100e6 / 8) * 1e3
    assert none["total_ms"]["expected"] == pytest.approx(wire_ms, rel=0.1)
    assert found["forecast"]["method"] != "none"


def test_a_run_is_forecast_and_scored(tmp_path: Path) -> None:
    for number, method in enumerate(("none", "zstd")):
        ended = tool(
            *("pipeline.run", *GUEST, "--method", method, "--max-bandwidth", "50M", "--forecast"),
            *("--json", str(tmp_path / f"{number}.json")),
        )
        assert ended.returncode == 0, ended.stderr
        assert "came true" in ended.stdout
    found = json.loads((tmp_path / "0.json").read_text())
    assert set(found["forecast"]["total_ms"]) == {"expected", "low", "high"}
    assert found["forecast"]["chance_to_converge"] == 1.0
    assert found["score"]["converged"]
    assert "error" in found["score"]["total_ms"]
    ended = tool("tools.forecast", "--score", str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert "total ms" in ended.stdout
    assert "Brier score" in ended.stdout
    (tmp_path / "other.json").write_text('{"score": {"total_ms": 7}}')
    (tmp_path / "no.json").write_text("[1]")
    ended = tool("tools.forecast", "--score", str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert "2 files were no results" in ended.stdout


def test_a_migration_to_another_host_is_forecast_and_scored() -> None:
    with receiver() as here:
        address = f"127.0.0.1:{here.port}"
        ended = sent(address, *GUEST, "--max-bandwidth", "50M", "--forecast", "--json", "-")
        assert ended.code == 0, ended.err
        assert here.end().code == 0
    assert ended.result["score"]["converged"]
    assert ended.result["forecast"]["total_ms"]["expected"] > 0


def one_run(guest: str, method: str, expected: float, came_true: float) -> dict[str, Any]:
    return {
        "guest": guest,
        "method": method,
        "link": "0",
        "turn": 1,
        "forecast": {"chance_to_converge": 1.0, "total_ms": {"expected": expected}},
        "score": {"total_ms": {"came_true": came_true, "error": 0.0}, "converged": True},
    }


def test_what_the_best_forecast_took_longer_than_the_best_run() -> None:
    right = [one_run("idle", "none", 100, 90), one_run("idle", "zstd", 80, 85)]
    wrong = [one_run("build", "none", 100, 80), one_run("build", "zstd", 90, 100)]
    found = slower_than_best([*right, *wrong, one_run("alone", "none", 1, 1)])
    assert found == {"idle, 0, turn 1": 0, "build, 0, turn 1": pytest.approx(0.25)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--qmp", "/no/such/socket"), "no QEMU listens there"),
        (("--qmp", "x", "--attach", "y"), "name one of"),
        (("--qmp", "x", "--size", "1G"), "leave this out"),
        (("--score", "/no/such/folder"), "no such folder"),
        (("--score", "/", "--bandwidth", "1G"), "leave out --score"),
        (("--score", "/", "--html", "x"), "leave out --score"),
        (("--size", "16M", "--max-bandwidth", "1G"), "is QEMU's own, for --qmp, --libvirt"),
        (("--libvirt", "vm", "--max-bandwidth", "fast"), "--max-bandwidth fast"),
        (("--html", "-"), "name a file"),
        (("--html", "/no/such/folder/x"), "name a file in a folder that can"),
        (("--channels", "0"), "must be 1 to"),
        (("--channels", "a,b"), "numbers with commas"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(arguments: tuple[str, ...], said: str) -> None:
    ended = tool("tools.forecast", *arguments)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert sum(line.startswith("error: ") for line in ended.stderr.splitlines()) == 1


def test_a_qat_run_cannot_be_forecast_yet() -> None:
    ended = tool("pipeline.run", *GUEST, "--method", "qatzip", "--forecast")
    assert ended.returncode == 2
    assert "not modelled" in ended.stderr


@pytest.mark.long
@pytest.mark.usefixtures("live_guest_here")
def test_a_vm_is_looked_at_through_its_monitor(tmp_path: Path) -> None:
    options = GuestOptions(192 << 20, writer_mib=64, rate_mib=8)
    ram = GuestRam.create(options.size_bytes, "forecast")
    machine = GuestMachine(ram, options, monitor=tmp_path / "qmp")
    try:
        machine.wait_for_line(2)
        ended = tool(
            *("tools.forecast", "--qmp", str(tmp_path / "qmp"), "--bandwidth", "100Mbit"),
            *("--json", str(tmp_path / "json")),
        )
        assert ended.returncode == 0, ended.stderr
        found = json.loads((tmp_path / "json").read_text())
        curve = found["guest"]["curve"]["pages"]
        assert max(curve[-1]) > 1000  # two seconds at 8 MiB/s are 4096 pages, some of them twice
        assert found["guest"]["cost"] == {"how": "file", "calls": 0, "total_ms": 0.0, "longest_ms": 0.0}
        assert "held nothing in QEMU" in ended.stdout
        assert 0 < found["guest"]["zero_share"] < 1
        assert "multifd-compression" in ended.stdout or "pipeline.relay" in ended.stdout
        told = machine.wait_for_line(0, 20)
        assert machine.wait_for_line(told.count + 1, 20).bad == 0
        machine.qmp.run("migrate-set-parameters", max_bandwidth=1 << 20)
        machine.qmp.run("migrate", uri="exec:cat > /dev/null")
        ended = tool("tools.forecast", "--qmp", str(tmp_path / "qmp"))
        assert ended.returncode == 2
        assert "is being migrated" in ended.stderr
    finally:
        machine.stop()
        os.close(ram.fd)
