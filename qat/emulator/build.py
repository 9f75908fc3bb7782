"""Build the emulator's library with the system's C compiler, when its source is newer than it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("libqatzip.c")
NAME = "libqatzip.so.3"
FOLDER = Path(__file__).resolve().parents[2] / ".emulator"


class CannotBuild(Exception):
    """No compiler, or no place for the library; the message says what to do."""


def library() -> Path:
    """The library, built if need be. Raises CannotBuild."""
    folder = FOLDER if os.access(FOLDER.parent, os.W_OK) else Path(tempfile.gettempdir())
    if folder is not FOLDER:
        folder = folder / f"ramferry-emulator-{os.getuid()}"
    target = folder / NAME
    if target.exists() and target.stat().st_mtime >= SOURCE.stat().st_mtime:
        return target
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise CannotBuild("the emulator needs a C compiler: apt-get install gcc libc6-dev")
    folder.mkdir(mode=0o700, exist_ok=True)
    beside = folder / f"{NAME}.{os.getpid()}"
    command = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-o", str(beside), str(SOURCE), "-lpthread"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        said = ended.stderr.strip().splitlines()
        raise CannotBuild(f"the emulator's library could not be built: {said[0] if said else compiler}")
    beside.replace(target)
    return target
