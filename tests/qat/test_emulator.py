"""Every hardware path, across processes, on the emulated device."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qat.emulator.faults import KINDS, parse_fault
from qat.emulator.model import DeviceModel, chunks
from tests.support.emulated import emulator
from tests.support.harness import ROOT, Run, assert_clean, leftovers, migrate, run

QATZIP = ("--size", "32M", "--method", "qatzip", "--dirty-rate", "0")


def test_the_work_is_done_in_hardware_and_marked_simulated() -> None:
    with emulator() as (environment, _):
        result = migrate(*QATZIP, environment=environment)
        plain = run(*QATZIP, "--quiet", environment=environment)
    qat = result["qat"]
    assert qat["simulated"] is True
    assert (qat["software_requests"], qat["fallback_reason"]) == (0, None)
    least = -(-result["traffic"]["guest_bytes"] // (64 << 10))
    assert least <= qat["hardware_requests"] <= least + result["traffic"]["packets"]
    assert "(simulated)" in plain.out
    assert "SIMULATED" in plain.out


def test_the_channels_cpu_is_not_the_devices() -> None:
    with emulator() as (environment, _):
        device = migrate(*QATZIP, environment=environment)
    software = migrate(*QATZIP, environment={"QATZIP_LIBRARY": "/nowhere/libqatzip.so.3"})
    assert device["send"]["cpu_seconds"] < software["send"]["cpu_seconds"]


def test_decoding_on_the_device() -> None:
    with emulator() as (environment, _):
        once = migrate(*QATZIP, environment=environment)
        both = migrate(*QATZIP, "--qat-decode", "hardware", environment=environment)
    assert both["qat"]["hardware_requests"] == 2 * once["qat"]["hardware_requests"]


def test_beyond_the_instances_is_software_and_counted() -> None:
    with emulator("--instances", "1") as (environment, _):
        ended = run(*QATZIP, "--channels", "3", "--json", "-", environment=environment)
    qat = ended.result["qat"]
    assert ended.code == 0
    assert qat["hardware_requests"] > 0
    assert qat["software_requests"] > 0
    assert qat["fallback_reason"] == "QZ_NOSW_NO_INST_ATTACH"


@pytest.mark.parametrize("method", ["qatzip", "auto"])
def test_without_fallback_beyond_the_instances_is_told_by_its_cause(method: str) -> None:
    options = ("--size", "16M", "--method", method, "--channels", "3", "--no-qat-fallback")
    with emulator("--instances", "1") as (environment, _):
        ended = run(*options, environment=environment)
    assert ended.code == 2
    assert "QZ_NOSW_NO_INST_ATTACH" in ended.errors[0] and "fewer --channels" in ended.errors[0]
    assert f"method {method} " in ended.errors[0] and "no answer" not in ended.errors[0]


def test_a_device_that_is_always_busy_did_nothing_and_is_not_shown_as_if() -> None:
    with emulator("--fault", "busy:1000") as (environment, _):
        ended = run(*QATZIP, "--quiet", environment=environment)
    assert "qatzip 1 (software)" in ended.out and "SIMULATED" not in ended.out


def test_an_instance_is_given_back_by_a_process_that_ends() -> None:
    with emulator("--instances", "2") as (environment, _):
        for _turn in range(3):
            assert migrate(*QATZIP, environment=environment)["qat"]["software_requests"] == 0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("lost:5", "QZ_FAIL"),
        ("hang:5", "no answer"),
        ("hang-all:9", "no answer"),
        ("fail:4", "QZ_FAIL"),
        ("short:4", "wrong lengths"),
        ("long:4", "wrong lengths"),
        ("busy:9", "QZ_NOSW_NO_INST_ATTACH"),
        ("low-memory", "QZ_NOSW_LOW_MEM"),
        ("no-hardware", "QZ_NOSW_NO_HW"),
    ],
)
def test_a_device_that_fails_costs_no_page(fault: str, reason: str) -> None:
    with emulator("--fault", fault) as (environment, _):
        result = migrate(*QATZIP, "--qat-timeout", "0.5", environment=environment)
    qat = result["qat"]
    assert qat["software_requests"] > 0
    assert reason in qat["fallback_reason"]
    assert (qat["hardware_requests"] > 0) == (fault not in ("low-memory", "no-hardware"))


@pytest.mark.parametrize("fault", ["lost:5", "hang:5", "fail:4", "short:4"])
def test_without_fallback_a_device_that_fails_ends_the_run(fault: str) -> None:
    with emulator("--fault", fault) as (environment, _):
        ended = run(*QATZIP, "--no-qat-fallback", "--qat-timeout", "0.5", environment=environment)
    assert ended.code == 1
    assert len(ended.errors) == 1
    assert "qatzip" in ended.errors[0]


def test_a_wrong_byte_is_never_applied() -> None:
    with emulator("--fault", "corrupt:7") as (environment, _):
        ended = run(*QATZIP, environment=environment)
    assert ended.code == 1
    assert len(ended.errors) == 1
    for part in ("recv side", "receiver", "packet", "qatzip"):
        assert part in ended.errors[0]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_device_killed_or_stopped_in_mid_run_loses_nothing(how: signal.Signals) -> None:
    before = leftovers()
    options = ("--size", "256M", "--method", "qatzip", "--dirty-rate", "8M", "--max-bandwidth", "40M")
    with emulator() as (environment, device):
        running = Run(*options, "--qat-timeout", "0.5", "--json", "-", environment=environment)
        running.one("rf receiver 1")
        time.sleep(1.5)
        device.send_signal(how)
        ended = running.end()
        device.send_signal(signal.SIGCONT)
    assert ended.code == 0, ended.err
    result: dict[str, Any] = ended.result
    assert result["verified"] is True
    assert result["qat"]["hardware_requests"] > 0
    assert result["qat"]["software_requests"] > 0
    assert_clean(running.session, before)


ONE_A_CALL = (
    "--size",
    "32M",
    "--method",
    "qatzip",
    "--channels",
    "1",
    "--packet-size",
    "64K",
    "--filled",
    "1",
)


@pytest.mark.parametrize(("every", "software_share"), [(60, 0.02), (10, 0.9)])
def test_a_device_is_left_alone_when_it_fails_often_and_not_for_a_few_errors(
    every: int, software_share: float
) -> None:
    with emulator("--fault", f"fail:{every}") as (environment, _):
        qat = migrate(*ONE_A_CALL, "--dirty-rate", "0", environment=environment)["qat"]
    share = qat["software_requests"] / (qat["software_requests"] + qat["hardware_requests"])
    assert abs(share - software_share) < 0.1
    assert qat["fallback_reason"] == "QZ_FAIL"


AUTO = ("--size", "64M", "--method", "auto", "--no-qat-fallback", "--dirty-rate", "0", "--max-bandwidth")


def test_auto_without_fallback_needs_a_device_as_qatzip_does() -> None:
    with emulator("--fault", "no-hardware") as (environment, _):
        ended = run(*AUTO, "200M", environment=environment)
    assert ended.code == 2
    assert len(ended.errors) == 1
    assert "method auto with --no-qat-fallback needs a QAT device" in ended.errors[0]
    with emulator() as (environment, _):
        result = migrate(*AUTO, "200M", environment=environment)
    assert result["qat"]["hardware_requests"] > 0


def test_auto_decompresses_on_the_device_where_that_is_asked() -> None:
    with emulator() as (environment, _):
        options = ("--size", "64M", "--method", "auto", "--dirty-rate", "0", "--max-bandwidth", "200M")
        qat = migrate(*options, "--qat-decode", "hardware", environment=environment)["qat"]
    assert qat["hardware_requests"] > 0
    assert (qat["software_requests"], qat["fallback_reason"]) == (0, None)


# At the second call: on a busy machine auto leaves a device little to do.
@pytest.mark.parametrize("fault", ["fail:2", "hang:2", "lost:2"])
def test_auto_without_fallback_ends_with_a_device_that_fails(fault: str) -> None:
    with emulator("--fault", fault) as (environment, _):
        ended = run(*AUTO, "200M", "--qat-timeout", "0.5", environment=environment)
    assert ended.code == 1
    assert len(ended.errors) == 1
    assert "qatzip" in ended.errors[0]


def test_auto_goes_on_without_a_device_that_hangs() -> None:
    with emulator("--fault", "hang-all:2") as (environment, _):
        options = ("--size", "64M", "--method", "auto", "--dirty-rate", "0", "--max-bandwidth", "200M")
        result = migrate(*options, "--qat-timeout", "0.3", environment=environment)
    assert result["qat"]["hardware_requests"] > 0
    assert result["qat"]["software_requests"] > 0
    assert result["qat"]["fallback_reason"] == "no answer"


def test_a_command_runs_on_the_device() -> None:
    command = [sys.executable, "-m", "qat.emulator", "--", sys.executable, "-m", "pipeline.run", *QATZIP]
    ended = subprocess.run([*command, "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "(simulated)" in ended.stdout
    assert "answered" in ended.stderr


@pytest.mark.parametrize("options", [("--fault", "sulk"), ("--instances", "x"), ("--devices", "0")])
def test_wrong_options_are_one_line(options: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "qat.emulator", *options]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


def test_every_fault_has_a_meaning() -> None:
    for kind in KINDS:
        assert parse_fault(kind).kind == kind
        assert parse_fault(f"{kind}:3").number == 3
    for text in ("", "hang:0", "hang:x", "lost:-1"):
        with pytest.raises(ValueError, match=r"must be|number"):
            parse_fault(text)


@given(st.lists(st.integers(1, 1 << 20), min_size=1, max_size=50), st.integers(1, 8))
def test_the_model_never_passes_its_capacity(sizes: list[int], engines: int) -> None:
    model = DeviceModel(capacity=1e9, engines=engines)
    ends = [model.finish(0.0, chunks(size, 64 << 10)) for size in sizes]
    assert max(ends) >= sum(sizes) / 1e9
    lone = DeviceModel(capacity=1e9, engines=engines).finish(0.0, [64 << 10])
    assert lone == pytest.approx(10e-6 + (64 << 10) / (1e9 / engines))
    assert all(later >= 0 for later in ends)


def test_more_processes_are_faster_until_the_device_is_full() -> None:
    def rate(clients: int) -> float:
        model = DeviceModel(capacity=1e9, engines=8)
        clock = [0.0] * clients
        done = 0
        while min(clock) < 1.0:
            index = clock.index(min(clock))
            clock[index] = model.finish(clock[index], [512 << 10])
            done += 512 << 10
        return done / max(clock)

    rates = [rate(clients) for clients in (1, 2, 4, 8, 16)]
    assert all(later >= 0.99 * earlier for earlier, later in pairwise(rates))
    assert rates[2] > 3 * rates[0]
    assert rates[4] <= 1.01e9
