"""Host profiles: TOML in and out, and what a forecast makes of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.forecast.bands import forecast
from pipeline.forecast.host_profile import CodecSpeed, HostProfile, profile_toml, read_profile, speed_of
from pipeline.forecast.qat_device import QatDevice
from pipeline.forecast.situation import Batches, Candidate, CurveSamples, Guest, Host, Plan
from pipeline.policy import PolicySettings

HEAD = 'title = "a"\nsource = "b"\n'
CODEC = '[[codec]]\nmethod = "zstd"\nlevel = 1\ncompress_bytes_per_second = 1e9\n'
DECOMPRESS = "decompress_bytes_per_second = 2e9\n"
QAT = (
    "[qat]\ndevices = 2\ndevice_bytes_per_second = 4e9\nlatency_us = 20\n"
    "send_cpu_ns = 0.2\nrecv_cpu_ns = 0.1\n"
)


def read(tmp_path: Path, text: str) -> HostProfile:
    file = tmp_path / "host.toml"
    file.write_text(text)
    return read_profile(file)


def test_a_profile_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, f'{HEAD}cpus = 16\nlink = "10Gbit"\n{CODEC}{DECOMPRESS}{QAT}')
    assert found.cpus == 16
    assert found.link_bytes_per_second == 1_250_000_000
    assert found.speed("zstd", 1) == CodecSpeed("zstd", 1, 1.0, 0.5)
    assert found.speed("zstd", 3) is None
    assert found.qat == QatDevice(2, 4e9, 20, 0.2, 0.1)


def test_what_is_written_reads_the_same(tmp_path: Path) -> None:
    speed = CodecSpeed("zstd", 1, 1.0, 0.5)
    whole = HostProfile(
        'a "quoted" \\ title', "b", 2.0, 125_000_000, (speed,), QatDevice(2, 4e9, 20.5, 0.2, 0.1)
    )
    assert read(tmp_path, profile_toml(whole)) == whole


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = ", "host.toml: "),
        ("", "neither a codec nor a QAT device"),
        (HEAD, "neither a codec nor a QAT device"),
        (f"title = 3\nsource = 'b'\n{QAT}", "title must be a text"),
        (f"{HEAD}colour = 3\n{QAT}", "'colour' is not known"),
        (f"{HEAD}cpus = 0\n{QAT}", "cpus 0: must be"),
        (f"{HEAD}cpus = nan\n{QAT}", "cpus nan: must be"),
        (f"{HEAD}cpus = true\n{QAT}", "cpus must be a number"),
        (f"{HEAD}link = 3\n{QAT}", "link: write it as text"),
        (f'{HEAD}link = "fast"\n{QAT}', "link fast"),
        (f"{HEAD}codec = 3\n", "write [[codec]]"),
        (f"{HEAD}codec = [3]\n", "codec 1: must be a table"),
        (f"{HEAD}{CODEC}", "decompress_bytes_per_second is missing"),
        (f"{HEAD}{CODEC}decompress_bytes_per_second = inf\n", "must be 1 to"),
        (f"{HEAD}{CODEC}decompress_bytes_per_second = -3\n", "must be 1 to"),
        (f"{HEAD}{CODEC}{DECOMPRESS}{CODEC}{DECOMPRESS}", "twice"),
        (HEAD + (CODEC + DECOMPRESS).replace("zstd", "gzip"), "none of a CPU's"),
        (HEAD + (CODEC + DECOMPRESS).replace("zstd", "qatzip"), "none of a CPU's"),
        (HEAD + (CODEC + DECOMPRESS).replace("zstd", "none"), "has no level"),
        (HEAD + (CODEC + DECOMPRESS).replace("level = 1", "level = 1.5"), "whole number"),
        (HEAD + "qat = 3\n", "qat: must be a table"),
        (HEAD + QAT.replace("devices = 2", "devices = 0"), "devices 0: must be 1"),
        (HEAD + QAT.replace("devices = 2", "devices = 2.5"), "whole number"),
        (HEAD + QAT.replace("4e9", "0"), "device_bytes_per_second 0: must be"),
        (HEAD + QAT + "engines = 10000000\n", "engines 10000000: must be"),
        (HEAD + QAT + "request_bytes = 0\n", "request_bytes 0: must be"),
        (HEAD + QAT + "speed = 1\n", "'speed' is not known"),
        (HEAD + "[calibration]\n", "own is missing"),
        (HEAD + '[calibration]\nown = "a"\n', "needs the rows of two hosts"),
        (HEAD + '[calibration]\nown = "a"\na = 3\n', "must be a table"),
        (HEAD + QAT + '[calibration]\nown = "a"\n', "instead of"),
    ],
)
def test_what_is_wrong_in_a_profile_is_said_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path: Path) -> None:
    file = tmp_path / "host.toml"
    file.write_bytes(b"\xff\xfe")
    for path, said in ((file, "UTF-8"), (tmp_path, "directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(UsageError, match=said):
            read_profile(path)


def batches(share: float) -> Batches:
    plain = np.full(32, 524_288.0)
    return Batches(plain, plain * share, plain * 2.0, plain * 0.5)


GUEST = Guest(1 << 18, 0.2, 0.0, CurveSamples((0.5, 1.0), ((10, 10), (20, 20))), 1.0)
ZSTD, ZLIB = (Candidate(name, 1, batches(0.3), batches(0.3)) for name in ("zstd", "zlib"))


def total_ms(candidate: Candidate, channels: int = 2, link: float = 0.0) -> float:
    found = forecast(
        GUEST, candidate, Host(64, 64, one_host=False), Plan(channels, channels, link, PolicySettings())
    )
    return found.bands["total_ms"].expected


def profile(device: QatDevice) -> HostProfile:
    return HostProfile("a", "b", None, 0, (CodecSpeed("zstd", 1, 10.0, 1.0),), device)


def test_speeds_of_a_profile_stand_for_those_measured_here() -> None:
    other = profile(QatDevice(1, 4e9, 20, 0.2, 0.1))
    slower = other.at_its_speed(ZSTD)
    assert slower.modelled
    assert total_ms(slower) > 3 * total_ms(ZSTD)
    assert other.at_its_speed(ZLIB) == ZLIB
    measured = speed_of(slower)
    assert measured is not None
    assert measured.compress_ns == pytest.approx(10.0)


def test_qatzip_is_as_fast_as_its_devices_and_as_small_as_zlib() -> None:
    one, four = (
        profile(QatDevice(n, 4e9, 20, 0.2, 0.1, payload_over_zlib=1.1)).on_its_device(ZLIB) for n in (1, 4)
    )
    assert one.method == "qatzip"
    assert one.modelled
    assert one.whole.payload_bytes.sum() == pytest.approx(ZLIB.whole.payload_bytes.sum() * 1.1)
    normal = GUEST.ram_pages * 4096 * 0.8
    assert total_ms(one, channels=32) == pytest.approx(normal / 4e9 * 1e3, rel=0.1)
    assert total_ms(four, channels=32) < total_ms(one, channels=32) / 2
    assert total_ms(one, channels=32, link=1e8) == pytest.approx(normal * 0.33 / 1e8 * 1e3, rel=0.1)
