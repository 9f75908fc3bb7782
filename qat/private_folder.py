"""The user's own cache folder, and what makes it safe to load code from.

A library that is loaded runs as its user. So nobody else may be able to put one where we look: the
folder and the file belong to the effective user and nobody else can write to them, and nobody else
can rename what leads there. The rules are those of sshd's StrictModes (`safe_path` in OpenSSH's
misc.c), except that a sticky ancestor, as /tmp is, may be writable by others.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path

NAME = "ramferry"
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
ROOT_UID = 0
ELSEWHERE = "set XDG_CACHE_HOME to a folder of your own"
REMOVE = f"remove it, or {ELSEWHERE}"


class NotPrivate(Exception):
    """Somebody else may have written what would be loaded. `mend` is the command or change that helps."""

    def __init__(self, path: Path, reason: str, mend: str) -> None:
        self.mend = mend
        super().__init__(f"nothing is loaded from {path}, which {reason}: {mend}")


def user_cache(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The user's cache folder for this project, whether or not it exists yet.

    None without a home that belongs to the effective user. As the XDG Base Directory Specification
    says, `XDG_CACHE_HOME` comes before `~/.cache`, and is ignored when it is not absolute.
    """
    named = environment.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):
        return Path(named, NAME)
    home = environment.get("HOME", "")
    try:
        usable = os.path.isabs(home) and Path(home).is_dir() and Path(home).stat().st_uid == os.geteuid()
    except OSError:
        usable = False
    return Path(home, ".cache", NAME) if usable else None


def make_private(folder: Path) -> Path:
    """Create a folder, and what is missing above it, with mode 0700; then `checked_folder`.

    Raises NotPrivate, and OSError when it cannot be created.
    """
    for part in (*reversed(folder.parents), folder):
        if not os.path.lexists(part):
            try:
                part.mkdir(mode=0o700)
            except FileExistsError:
                pass  # another process was quicker; it is checked like any other
    return checked_folder(folder)


def checked_folder(folder: Path) -> Path:
    """The folder with every symbolic link above it resolved, once it is known to be private.

    Use the path that is returned: a link above the given one might be changed later. Raises
    NotPrivate, and OSError when it cannot be read.
    """
    found = folder.parent.resolve(strict=True) / folder.name
    status = found.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise NotPrivate(found, "is a symbolic link", REMOVE)
    if not stat.S_ISDIR(status.st_mode):
        raise NotPrivate(found, "is not a folder", REMOVE)
    _check_owner_and_mode(found, status)
    for ancestor in found.parents:
        _check_ancestor(ancestor)
    return found


def checked_file(folder: Path, name: str) -> Path:
    """The file `name` of a folder from `checked_folder`, once it is known to be private.

    It may be a symbolic link to another file of the same folder. Raises NotPrivate, and OSError
    (FileNotFoundError) when it cannot be read.
    """
    found = (folder / name).resolve(strict=True)
    if found.parent != folder:
        raise NotPrivate(folder / name, "leads out of its folder", "remove it")
    status = found.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise NotPrivate(found, "is not a regular file", "remove it")
    _check_owner_and_mode(found, status)
    return found


def _check_owner_and_mode(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or _is_nameless(status.st_uid):
        raise NotPrivate(path, f"belongs to {_user(status.st_uid)}", REMOVE)
    if status.st_mode & WRITABLE_BY_OTHERS:
        # Closing it is not enough: what others have put there already would stay.
        raise NotPrivate(path, "others can write to", REMOVE)


def _check_ancestor(folder: Path) -> None:
    status = folder.lstat()
    if status.st_uid not in (ROOT_UID, os.geteuid()) or _is_nameless(status.st_uid):
        raise NotPrivate(folder, f"belongs to {_user(status.st_uid)}", ELSEWHERE)
    if status.st_mode & WRITABLE_BY_OTHERS and not status.st_mode & stat.S_ISVTX:
        raise NotPrivate(folder, "others can write to", f"chmod go-w {folder}, or {ELSEWHERE}")


def _is_nameless(uid: int) -> bool:
    """Whether a number stands for every user that has none in this user namespace (user_namespaces(7))."""
    try:
        overflow = int(Path("/proc/sys/kernel/overflowuid").read_text())
        users = Path("/proc/self/uid_map").read_text().split()
    except OSError:
        return False
    return uid == overflow and users != ["0", "0", "4294967295"]


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
