"""A real VM is looked at, forecast, moved through two relays, and the forecast is scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import tool
from tests.support.live_vm import GUEST, Rig, goes_on, rig

pytestmark = pytest.mark.usefixtures("live_guest_here")


@pytest.fixture
def vms(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path, replace(GUEST, rate_mib=2)) as made:
        yield made


def moved(vms: Rig, *more: str) -> dict[str, Any]:
    at = {side: ("--qmp", str(vms.monitor(side))) for side in ("source", "destination")}
    vms.start_relays(
        source=(*at["source"], "--migrate", "--multifd", "2", "--forecast", *more),
        destination=at["destination"],
    )
    assert vms.relays["source"].end() == 0
    goes_on(vms, "destination")
    return vms.relays["source"].result()


def test_a_vm_is_forecast_moved_and_scored(vms: Rig) -> None:
    result = moved(vms, "--max-bandwidth", "12M")
    forecast, score = result["forecast"], result["score"]
    assert forecast["method"] == "auto"
    assert forecast["chance_to_converge"] == 1
    assert score["converged"]
    assert score["total_ms"]["came_true"] == result["qemu"]["total_ms"]
    assert abs(score["total_ms"]["error"]) < 0.5
    assert score["wire_bytes"]["came_true"] > 0
    ended = tool("tools.forecast", "--score", str(vms.folder))
    assert ended.returncode == 0, ended.stderr
    assert "total ms" in ended.stdout


@pytest.mark.long
def test_without_a_limit_the_link_is_measured_first(vms: Rig) -> None:
    result = moved(vms)
    assert result["score"]["converged"]
    assert "measuring the link" in vms.relays["source"].said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--listen", "unix:o", "--to", "unix:l", "--forecast"), "needs --qmp"),
        (("--accept", "unix:l", "--deliver", "unix:i", "--forecast"), "is for the source's relay"),
        (
            ("--listen", "unix:o", "--to", "unix:l", "--forecast", "--qmp", "q", "--method", "qatzip"),
            "QAT device is not measured",
        ),
        (
            ("--listen", "unix:o", "--to", "unix:l", "--forecast", "--qmp", "/no/such"),
            "no QEMU listens there",
        ),
    ],
)
def test_what_cannot_be_is_said_in_a_line(arguments: tuple[str, ...], said: str) -> None:
    ended = tool("pipeline.relay", *arguments)
    assert ended.returncode == 2
    assert said in ended.stderr
