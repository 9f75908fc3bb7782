"""Method auto in whole runs: what it chooses, what it says of it, and that the copy is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_device import with_device
from tests.support.harness import migrate, run
from tools.measuring.images import KINDS, write_image

IDLE = ("--size", "64M", "--prealloc", "--dirty-rate", "0", "--method", "auto")


def share(result: dict[str, Any], method: str) -> float:
    """Share of the guest bytes that a method compressed."""
    done = sum(
        candidate["guest_bytes"]
        for candidate in result["auto"]["candidates"]
        if candidate["method"] == method
    )
    return float(done / result["traffic"]["guest_bytes"])


def test_without_a_limit_nothing_is_compressed() -> None:
    result = migrate(*IDLE)
    assert result["auto"] == {"switches": [], "candidates": []}
    assert result["traffic"]["compression_ratio"] < 1.0
    assert (result["options"]["method"], result["options"]["level"]) == ("auto", None)


def test_a_slow_wire_is_worth_a_hard_method() -> None:
    result = migrate(*IDLE, "--max-bandwidth", "20M")
    assert result["traffic"]["compression_ratio"] > 2
    assert share(result, "zstd") > 0.8
    for switch in result["auto"]["switches"]:
        assert switch["at_ms"] >= 0
        assert "the wire carries" in switch["reason"]
    totals = result["auto"]["candidates"]
    assert sum(candidate["payload_bytes"] for candidate in totals) <= result["traffic"]["wire_bytes"]
    assert all(candidate["compress_cpu_seconds"] > 0 for candidate in totals if candidate["method"] != "none")


def test_a_fixed_method_has_nothing_to_say() -> None:
    assert migrate(*IDLE[:-2], "--method", "zstd")["auto"] is None


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "guest"])
def test_every_kind_of_memory_arrives(kind: str, tmp_path: Path) -> None:
    image = write_image(kind, 32 << 20, None, tmp_path)
    run_options = ("--image", str(image), "--dirty-rate", "0", "--method", "auto", "--max-bandwidth", "60M")
    result = migrate(*run_options)
    assert result["verified"] is True
    if kind == "incompressible":
        assert share(result, "zstd") + share(result, "lz4") < 0.1
        assert result["traffic"]["raw_packets"] > 0


def test_a_guest_that_writes_is_migrated() -> None:
    result = migrate(
        *("--size", "64M", "--method", "auto", "--max-bandwidth", "100M", "--dirty-rate", "16M"),
        *("--verify=both",),
    )
    assert result["verification"] == {"invariant": True, "images": True}


def test_auto_takes_the_device_where_one_answers(device: Path) -> None:
    limited = (*IDLE, "--max-bandwidth", "300M")
    result = migrate(*limited, environment=with_device(device))
    assert result["qat"]["hardware_requests"] > 0
    assert share(result, "qatzip") > 0
    without = migrate(*limited, environment=with_device(device, "no-hw"))
    assert share(without, "qatzip") == 0
    assert without["qat"]["software_requests"] == 0


def test_a_level_is_not_for_auto() -> None:
    ended = run(*IDLE, "--level", "3")
    assert ended.code == 2
    assert "auto chooses levels" in ended.errors[0]
