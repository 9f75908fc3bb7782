"""On a host with QAT hardware: `pytest -m qat_hardware`. Elsewhere these skip and say what is missing."""

from __future__ import annotations

import pytest

from qat.host import what_to_check
from qat.library import load
from qat.probe import ANSWERED, probe
from qat.status import LibraryMissing
from tests.support.harness import migrate
from tools.qat_load import Load, measure
from tools.qat_throughput import blocks_to_compress, cpu_codec

pytestmark = pytest.mark.qat_hardware

SECONDS = 1.0


@pytest.fixture(scope="module", autouse=True)
def hardware() -> None:
    """Skips without a real device."""
    answer = probe()
    if answer != ANSWERED:
        pytest.skip(f"no QAT device answers ({answer}): {what_to_check()}")
    try:
        if load().simulated:
            pytest.skip("QATZIP_LIBRARY is the emulator, no hardware")
    except LibraryMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def data() -> bytes:
    return blocks_to_compress(None)


def test_the_work_is_done_in_hardware_and_decodes_on_the_cpu() -> None:
    result = migrate("--size", "256M", "--method", "qatzip", "--no-qat-fallback", "--dirty-rate", "0")
    assert result["qat"]["hardware_requests"] > 0
    assert result["qat"]["software_requests"] == 0
    assert result["qat"]["simulated"] is False


def test_the_device_decompresses_as_well() -> None:
    options = ("--size", "64M", "--method", "qatzip", "--no-qat-fallback", "--dirty-rate", "0")
    result = migrate(*options, "--qat-decode", "hardware")
    assert result["qat"]["software_requests"] == 0


def test_it_costs_less_cpu_than_a_cpu_codec(data: bytes) -> None:
    device = measure(Load(seconds=SECONDS), data)
    assert device.cpu_s_per_gb < cpu_codec("isal", 1, data, 512 << 10, SECONDS)["cpu_s_per_gb"]


def test_throughput_grows_with_processes(data: bytes) -> None:
    one = measure(Load(seconds=SECONDS), data)
    four = measure(Load(seconds=SECONDS, processes=4), data)
    assert four.processes_in_software == 0
    assert four.compress_mb_s > 1.5 * one.compress_mb_s
