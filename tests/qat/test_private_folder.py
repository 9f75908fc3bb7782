"""What may be loaded from a user's folder, and what may not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from qat.private_folder import NotPrivate, checked_file, checked_folder, make_private, user_cache


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A private folder with a file in it."""
    made = make_private(tmp_path / "cache" / "ramferry")
    (made / "library.so").write_bytes(b"ours")
    (made / "library.so").chmod(0o600)
    return made


def test_a_new_folder_is_closed_to_others(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        made = make_private(tmp_path / "a" / "b" / "ramferry")
    finally:
        os.umask(old)
    assert [path.stat().st_mode & 0o777 for path in (made, made.parent, made.parent.parent)] == [0o700] * 3


def test_what_is_private_is_taken(folder: Path) -> None:
    assert make_private(folder) == checked_folder(folder) == folder
    assert checked_file(folder, "library.so") == folder / "library.so"


def test_a_link_within_the_folder_is_followed(folder: Path) -> None:
    (folder / "library.so.3").symlink_to("library.so")
    assert checked_file(folder, "library.so.3") == folder / "library.so"


def test_a_link_above_the_folder_is_resolved_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(folder.parent)
    assert checked_folder(tmp_path / "elsewhere" / "ramferry") == folder


def test_a_link_in_place_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "ramferry").symlink_to(folder)
    with pytest.raises(NotPrivate, match="symbolic link"):
        checked_folder(tmp_path / "ramferry")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(NotPrivate, match="symbolic link"):
        make_private(tmp_path / "dangling")
    assert not (tmp_path / "nowhere").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ramferry").write_bytes(b"")
    with pytest.raises(NotPrivate, match="not a folder"):
        make_private(tmp_path / "ramferry")


@pytest.mark.parametrize("mode", [0o770, 0o720, 0o702, 0o1777])
def test_a_folder_that_others_can_write_to_is_refused(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    with pytest.raises(NotPrivate, match="others can write to"):
        checked_folder(folder)


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_an_ancestor_that_others_can_write_to_is_refused(folder: Path, mode: int) -> None:
    folder.parent.chmod(mode)
    with pytest.raises(NotPrivate, match=f"{folder.parent}, which others can write to: chmod go-w"):
        checked_folder(folder)


def test_a_sticky_ancestor_is_taken(folder: Path) -> None:
    folder.parent.chmod(0o1777)
    assert checked_folder(folder) == folder


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_to_is_refused(folder: Path, mode: int) -> None:
    (folder / "library.so").chmod(mode)
    with pytest.raises(NotPrivate, match="others can write to"):
        checked_file(folder, "library.so")


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "planted.so").write_bytes(b"theirs")
    (folder / "library.so").unlink()
    (folder / "library.so").symlink_to(tmp_path / "planted.so")
    with pytest.raises(NotPrivate, match="leads out of its folder"):
        checked_file(folder, "library.so")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused(folder: Path, make: Callable[[Path], None]) -> None:
    (folder / "library.so").unlink()
    make(folder / "library.so")
    with pytest.raises(NotPrivate, match="not a regular file"):
        checked_file(folder, "library.so")


def test_another_user_finds_nothing_to_load(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(NotPrivate, match="belongs to"):
        checked_folder(folder)
    with pytest.raises(NotPrivate, match="belongs to"):
        checked_file(folder, "library.so")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user: needs root")
@pytest.mark.parametrize("whose", [".", "..", "library.so"])
def test_what_belongs_to_another_user_is_refused(folder: Path, whose: str) -> None:
    os.chown(folder / whose, 65534, 65534)
    with pytest.raises(NotPrivate, match="belongs to"):
        checked_file(checked_folder(folder), "library.so")


def test_what_is_missing_is_an_os_error(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        checked_folder(folder / "no" / "ramferry")
    with pytest.raises(FileNotFoundError):
        checked_file(folder, "no.so")


def test_the_cache_is_where_xdg_says(tmp_path: Path) -> None:
    home = str(tmp_path)
    assert user_cache({"HOME": home}) == tmp_path / ".cache" / "ramferry"
    assert user_cache({"HOME": home, "XDG_CACHE_HOME": "/some/where"}) == Path("/some/where/ramferry")
    for ignored in ("", "relative", "~/cache"):
        assert user_cache({"HOME": home, "XDG_CACHE_HOME": ignored}) == tmp_path / ".cache" / "ramferry"


@pytest.mark.parametrize("home", [None, "", "relative", "/nonexistent", "/dev/null"])
def test_no_home_is_no_cache(home: str | None) -> None:
    assert user_cache({} if home is None else {"HOME": home}) is None


def test_the_home_of_another_user_is_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    assert user_cache({"HOME": str(tmp_path)}) is None
