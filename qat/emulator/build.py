"""Build the emulator's library with the system's C compiler, once for each version of its source."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qat.private_folder import NotPrivate, checked_file, checked_folder, make_private, user_cache

SOURCE = Path(__file__).with_name("libqatzip.c")
FLAGS = ("-shared", "-fPIC", "-O2", "-Wall")
LIBRARIES = ("-lpthread",)


class CannotBuild(Exception):
    """No compiler, or no place for the library; the message says what to do."""


@contextmanager
def library() -> Iterator[Path]:
    """The library, for as long as the context lasts. Raises CannotBuild.

    It is kept in the user's cache folder. Where there is none that can be written to, it is built
    into a temporary folder, which is removed at the end.
    """
    kept = _kept_library()
    if kept is not None:
        yield kept
        return
    try:
        temporary = tempfile.TemporaryDirectory(prefix="ramferry-")
    except OSError as error:
        raise CannotBuild(
            f"the emulator has no folder to build its library in ({error.strerror}): "
            "set XDG_CACHE_HOME or TMPDIR to a folder of your own"
        ) from error
    with temporary as folder:
        try:
            built = _build(checked_folder(Path(folder)))
        except (NotPrivate, OSError) as error:
            raise CannotBuild(str(error)) from error
        yield built


def library_name() -> str:
    """A file name that changes with whatever the library depends on."""
    machine = platform.machine(), sysconfig.get_config_var("MULTIARCH") or ""
    recipe = "\0".join((*FLAGS, *LIBRARIES, *machine)).encode()
    return f"emulator-{hashlib.sha256(recipe + SOURCE.read_bytes()).hexdigest()[:16]}.so"


def _kept_library() -> Path | None:
    cache = user_cache()
    if cache is None:
        return None
    try:
        folder = make_private(cache)
        try:
            return checked_file(folder, library_name())
        except FileNotFoundError:
            return _build(folder)
    except NotPrivate as error:
        raise CannotBuild(str(error)) from error
    except OSError:
        return None  # a home that cannot be written to


def _build(folder: Path) -> Path:
    """Build into a folder that is known to be private. Raises CannotBuild, OSError."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise CannotBuild("the emulator needs a C compiler: apt-get install gcc libc6-dev")
    descriptor, name = tempfile.mkstemp(suffix=".so", dir=folder)
    os.close(descriptor)
    beside = Path(name)
    try:
        command = [compiler, *FLAGS, "-o", name, str(SOURCE), *LIBRARIES]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            said = ended.stderr.strip().splitlines()
            raise CannotBuild(f"the emulator's library could not be built: {said[0] if said else compiler}")
        beside.chmod(0o700)  # the linker makes a new file, with the umask's mode
        return beside.replace(folder / library_name())
    finally:
        beside.unlink(missing_ok=True)
