"""The device path, with a libqatzip of our own in which zlib plays the device."""

from __future__ import annotations

from pathlib import Path

import pytest

from qat import host
from qat.probe import ANSWERED, probe
from tests.support.fake_device import with_device
from tests.support.harness import migrate, run

SMALL = ("--size", "8M", "--method", "qatzip", "--dirty-rate", "1M")


def test_what_the_device_does_is_counted_as_hardware(device: Path) -> None:
    qat = migrate(*SMALL, environment=with_device(device))["qat"]
    assert qat["hardware_requests"] > 0
    assert (qat["software_requests"], qat["simulated"], qat["fallback_reason"]) == (0, False, None)


def test_the_library_may_be_named_by_its_folder(device: Path) -> None:
    assert migrate(*SMALL, environment=with_device(device.parent))["qat"]["hardware_requests"] > 0


def test_the_receiver_may_decode_on_the_device(device: Path) -> None:
    cpu = migrate(*SMALL, "--dirty-rate", "0", environment=with_device(device))
    both = migrate(*SMALL, "--dirty-rate", "0", "--qat-decode", "hardware", environment=with_device(device))
    assert both["qat"]["hardware_requests"] == 2 * cpu["qat"]["hardware_requests"]


def test_version_1_2_lacks_symbols_and_works(device_12: Path) -> None:
    result = migrate(*SMALL, "--qat-decode", "hardware", environment=with_device(device_12))
    assert result["qat"]["hardware_requests"] > 0


def test_a_request_is_a_member_of_the_qat_buffer(device: Path) -> None:
    idle = (*SMALL, "--dirty-rate", "0", "--filled", "1")
    for buffer, requests in (("4K", 2048), ("64K", 128), ("512K", 16)):
        result = migrate(*idle, "--qat-buffer", buffer, environment=with_device(device))
        zero = result["traffic"]["zero_pages"]
        assert requests - zero * 4096 // 4096 <= result["qat"]["hardware_requests"] <= requests


def test_a_busy_device_is_retried(device: Path) -> None:
    result = migrate(*SMALL, "--channels", "1", environment=with_device(device, "busy:2"))
    assert result["qat"]["software_requests"] == 0
    assert result["qat"]["hardware_requests"] > 0


def test_a_device_that_stays_busy_is_replaced_by_software_and_counted(device: Path) -> None:
    ended = run(*SMALL, "--channels", "1", "--json", "-", environment=with_device(device, "busy:6"))
    assert ended.code == 0
    assert "QZ_NOSW_NO_INST_ATTACH" in ended.err
    result = ended.result
    assert result["qat"]["software_requests"] > 0
    assert result["qat"]["hardware_requests"] > 0
    assert result["qat"]["fallback_reason"] == "QZ_NOSW_NO_INST_ATTACH"


def test_an_always_busy_device_still_ends_well(device: Path) -> None:
    result = migrate(*SMALL, environment=with_device(device, "always-busy"))
    assert result["qat"]["hardware_requests"] == 0
    assert result["qat"]["software_requests"] > 0


@pytest.mark.parametrize(
    ("mode", "reason"),
    [("no-hw", "QZ_NOSW_NO_HW"), ("init-busy", "QZ_NOSW_NO_INST_ATTACH"), ("bad-setup", "QZ_PARAMS")],
)
def test_no_session_is_one_warning_and_software(device: Path, mode: str, reason: str) -> None:
    ended = run(*SMALL, "--json", "-", environment=with_device(device, mode))
    assert ended.code == 0, ended.err
    warnings = [line for line in ended.err.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert reason in warnings[0]
    assert ("no free instance" in warnings[0]) is (mode == "init-busy")
    assert "Cannot open" not in ended.err
    assert ended.result["qat"]["fallback_reason"] == reason
    assert ended.result["qat"]["software_requests"] > 0


@pytest.mark.parametrize(
    ("mode", "reason"),
    [("no-hw", "QZ_NOSW_NO_HW"), ("init-busy", "QZ_NOSW_NO_INST_ATTACH"), ("bad-setup", "QZ_PARAMS")],
)
def test_without_fallback_no_session_is_exit_2(device: Path, mode: str, reason: str) -> None:
    ended = run(*SMALL, "--no-qat-fallback", environment=with_device(device, mode))
    assert ended.code == 2
    assert len(ended.errors) == 1
    assert reason in ended.errors[0]
    assert "tools.doctor" in ended.errors[0]
    assert ("no free instance" in ended.errors[0]) is (mode == "init-busy")


@pytest.mark.parametrize(
    ("mode", "words"),
    [("fail", "QZ_FAIL"), ("short", "consumed"), ("long", "produced")],
)
def test_a_device_that_fails_or_lies_costs_no_page(device: Path, mode: str, words: str) -> None:
    result = migrate(*SMALL, environment=with_device(device, mode))
    assert result["qat"]["software_requests"] > 0
    assert result["qat"]["hardware_requests"] == 0
    ended = run(*SMALL, "--no-qat-fallback", environment=with_device(device, mode))
    assert ended.code == 1
    assert len(ended.errors) == 1
    for part in ("send side", "channel", "packet", "qatzip", words):
        assert part in ended.errors[0]


def test_a_host_without_the_library_works(tmp_path: Path) -> None:
    nowhere = {"QATZIP_LIBRARY": str(tmp_path / "no.so")}
    result = migrate(*SMALL, environment=nowhere)
    assert result["qat"]["software_requests"] > 0
    assert "libqatzip" in result["qat"]["fallback_reason"]
    ended = run(*SMALL, "--no-qat-fallback", environment=nowhere)
    assert ended.code == 2
    assert "QZ_NOSW_NO_HW" in ended.errors[0]
    assert "get_qatzip.sh" in ended.errors[0]


def test_a_library_that_is_not_libqatzip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "libqatzip.so.3").write_bytes(b"not a library")
    result = migrate(*SMALL, environment={"QATZIP_LIBRARY": str(tmp_path)})
    assert result["qat"]["software_requests"] > 0


def test_probe_asks_in_another_process(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QATZIP_LIBRARY", str(device))
    monkeypatch.setenv("FAKE_QAT", "ok")
    assert probe() == ANSWERED
    monkeypatch.setenv("FAKE_QAT", "no-hw")
    assert probe() == "QZ_NOSW_NO_HW"


def fake_device(sysfs: Path, **files: str) -> None:
    entry = sysfs / "bus/pci/devices/0000:6b:00.0"
    (entry / "qat").mkdir(parents=True)
    for name, text in {"vendor": "0x8086", "device": "0x4940", "numa_node": "0", **files}.items():
        path = entry / name.replace("__", "/")
        path.write_text(text + "\n")


def test_devices_are_read_from_sysfs(tmp_path: Path) -> None:
    assert host.devices(tmp_path) == []
    assert "PCI" in host.what_to_check(tmp_path)
    fake_device(tmp_path, qat__state="up", qat__cfg_services="sym;asym", sriov_numvfs="16")
    (device,) = host.devices(tmp_path)
    assert (device.kind, device.state, device.services) == ("4xxx", "up", "sym;asym")
    assert "driver" in host.what_to_check(tmp_path)
    (tmp_path / "4xxx").mkdir()
    (tmp_path / "bus/pci/devices/0000:6b:00.0/driver").symlink_to(tmp_path / "4xxx")
    assert "ServicesEnabled=dc" in host.what_to_check(tmp_path)
    (tmp_path / "bus/pci/devices/0000:6b:00.0/qat/cfg_services").write_text("dc\n")
    assert "vfio" in host.what_to_check(tmp_path, tmp_path)
