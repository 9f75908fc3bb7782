"""Where a copy goes: room for it is taken first, nothing but a regular file is replaced, nothing is left."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from guestmem.page import PAGE_BYTES
from pipeline.destination.output import Output
from pipeline.errors import HostError, UsageError
from tests.support.two_hosts import receiver, sent

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8M", "none", folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mount: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_found_before_anything_is_sent(small_disk: Path) -> None:
    target = small_disk / "copy"
    with receiver("--output", str(target)) as here:
        ended = sent(here.address, "--size", "16M", "--dirty-rate", "0")
        assert ended.code != 0
        assert "round 1" not in ended.err
        assert str(target) in ended.errors[0] and "it needs 16M, and 8M are left there" in ended.errors[0]
        assert "not known" not in ended.err
        assert sent(here.address, "--size", "4M", "--dirty-rate", "0").code == 0
        assert here.end().code == 0
    assert target.stat().st_size == 4 * MIB


def test_room_is_taken_at_once_and_given_back(small_disk: Path) -> None:
    reserved = Output(str(small_disk / "copy")).reserve(6 * MIB)
    with pytest.raises(HostError, match="are left there"):
        Output(str(small_disk / "other")).reserve(6 * MIB)
    reserved.ram.words[7] = 1
    reserved.commit()
    copy = small_disk / "copy"
    assert copy.stat().st_size == 6 * MIB
    assert copy.stat().st_blocks * 512 < 2 * MIB, "what is zero is a hole"


def test_a_file_system_without_files_that_have_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def without(path: object, flags: int, mode: int = 0o777, **more: object) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE and Path(str(path)) == tmp_path:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, mode, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", without)
    target = tmp_path / "copy"
    given_up = Output(str(target)).reserve(MIB)
    assert [path.name for path in tmp_path.iterdir()] == [f".copy.{os.getpid()}"]
    given_up.give_up()
    assert not list(tmp_path.iterdir())
    reserved = Output(str(target)).reserve(MIB)
    reserved.ram.words[3] = 5
    assert not target.exists()
    reserved.commit()
    assert target.read_bytes() == bytes(reserved.ram.memory)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


@pytest.mark.parametrize(
    "kind", ["device", "pipe", "socket", "folder", "broken link", "link to a device", "stream", "loop"]
)
def test_what_is_no_regular_file_is_never_replaced(kind: str, tmp_path: Path) -> None:
    import socket

    path = tmp_path / "there"
    if kind == "device":
        path = Path("/dev/null")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    elif kind == "broken link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "stream":
        (tmp_path / "open").touch()
        path.symlink_to(f"/proc/self/fd/{os.open(tmp_path / 'open', os.O_WRONLY)}")
    else:
        path.symlink_to("/dev/null")
    before = path.lstat()
    with pytest.raises(UsageError):
        Output(str(path)).check()
    after = path.lstat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    link.symlink_to(real)
    reserved = Output(str(link)).reserve(256 * PAGE_BYTES)
    reserved.commit()
    assert link.is_symlink()
    assert real.stat().st_size == 256 * PAGE_BYTES


def test_a_device_that_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "copy"
    reserved = Output(str(target)).reserve(MIB)
    os.mkfifo(target)
    with pytest.raises(HostError, match="no regular file"):
        reserved.commit()
    assert target.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
