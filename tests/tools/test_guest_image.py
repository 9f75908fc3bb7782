"""The live Linux guest, and its RAM as a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.harness import tool


@pytest.fixture(scope="module")
def image(live_guest_here: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("guest") / "guest.raw"
    ended = tool(
        *("tools.qemu.guest_image", "--size", "256M", "--work", "writer", "--seconds", "2"),
        *("--output", str(path)),
    )
    assert ended.returncode == 0, ended.stderr
    assert str(path) in ended.stdout
    return path


def test_the_image_is_the_ram_of_a_linux(image: Path) -> None:
    assert image.stat().st_size == 256 << 20
    assert image.stat().st_mode & 0o777 == 0o600
    assert b"Linux version" in image.read_bytes()


def test_it_can_be_migrated(image: Path) -> None:
    ended = tool("pipeline.run", "--image", str(image), "--method", "zstd", "--quiet")
    assert ended.returncode == 0, ended.stderr
    assert "verified" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("--size 256M", "--output FILE is needed"),
        ("--size 1M --output x", "--size 1M"),
        ("--work sleep --output x", "--work sleep"),
        ("--seconds 0 --output x", "--seconds 0"),
        ("--output /proc/x", "--output /proc/x"),
    ],
)
def test_wrong_use_is_one_line(arguments: str, why: str) -> None:
    ended = tool("tools.qemu.guest_image", *arguments.split())
    assert ended.returncode == 2
    assert why in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
