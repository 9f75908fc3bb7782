"""Find and open libqatzip, and say which functions this version has.

Versions 1.2, 1.3 and 2.0 share the soname `libqatzip.so.3`, so only its symbols tell what a library
can do. It is looked for in this order: `QATZIP_LIBRARY` (a file, or a folder that holds
it), the loader's path, and the folder that `tools/get_qatzip.sh` fills.

Never open it in a process that forks later: a child that inherits a started user-space driver
accesses DMA memory that it has not mapped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qat._libqatzip import ffi
from qat.private_folder import NotPrivate, checked_file, checked_folder, user_cache
from qat.scripts import PROJECT, in_clone, shipped_script
from qat.status import LibraryMissing

SONAME = "libqatzip.so.3"
DEPENDENCIES = ("libusdm.so.0", "libqat.so.4")
LIBRARY_VARIABLE = "QATZIP_LIBRARY"

REQUIRED = ("qzInit", "qzCompress", "qzDecompress", "qzTeardownSession")
SETUPS = ("qzSetupSessionDeflateExt", "qzSetupSessionDeflate")


class Library:
    """An open libqatzip: `calls` has its functions, `path` is the file that was opened."""

    def __init__(self, path: str, calls: Any, kept: list[Any]) -> None:
        self.path = path
        self.calls = calls
        self._kept = kept
        self._has: dict[str, bool] = {}
        missing = [name for name in REQUIRED if not self.has(name)]
        if missing or not any(self.has(name) for name in SETUPS):
            raise LibraryMissing(f"{path} is not a usable libqatzip: it lacks {', '.join(missing or SETUPS)}")
        if self.has("qzSetLogLevel"):
            self.calls.qzSetLogLevel(0)

    @property
    def simulated(self) -> bool:
        """Whether this is the library of `qat.emulator`: whatever it answers, there is no device."""
        return self.has("ramferry_emulated")

    def has(self, name: str) -> bool:
        if name not in self._has:
            try:
                self._has[name] = bool(getattr(self.calls, name))
            except (AttributeError, ffi.error):  # cffi's out-of-line mode raises ffi.error
                self._has[name] = False
        return self._has[name]


def unpacked_folder() -> Path | None:
    """The folder that `tools/get_qatzip.sh` fills: `.qatzip` in a clone, else one in the user's cache.

    None for an installed package and a user without a home.
    """
    if in_clone():
        return PROJECT / ".qatzip"
    cache = user_cache()
    return cache / "qatzip" if cache is not None else None


def load() -> Library:
    """Open libqatzip. Raises LibraryMissing with all places that were tried."""
    named = os.environ.get(LIBRARY_VARIABLE)
    if named:
        path = Path(named)
        return _open(path / SONAME if path.is_dir() else path)
    try:
        return _open(Path(SONAME))
    except LibraryMissing as error:
        failures = [str(error)]
    places, folder = "on the loader's path", unpacked_folder()
    if folder is not None:
        places += f" or in {folder}"
        try:
            return _open(_unpacked(folder))
        except NotPrivate as error:
            raise LibraryMissing(str(error), error.mend) from error
        except (LibraryMissing, OSError) as error:
            failures.append(str(error))
    script = shipped_script("get_qatzip.sh")
    raise LibraryMissing(
        f"{SONAME} was not found {places}: run {script}, or set {LIBRARY_VARIABLE} ({'; '.join(failures)})",
        script,
    )


def _unpacked(folder: Path) -> Path:
    if in_clone():
        return folder / SONAME  # whoever can write to a clone can change the code that would check it
    private = checked_folder(folder)
    for name in DEPENDENCIES:
        if os.path.lexists(private / name):
            checked_file(private, name)
    checked_file(private, SONAME)
    return private / SONAME


def _open(path: Path) -> Library:
    kept = []
    try:
        if len(path.parts) > 1:
            # The loader does not look for dependencies in the library's own folder.
            for name in DEPENDENCIES:
                beside = path.with_name(name)
                if beside.exists():
                    kept.append(ffi.dlopen(str(beside), ffi.RTLD_NOW | ffi.RTLD_GLOBAL))
        calls = ffi.dlopen(str(path), ffi.RTLD_NOW)
    except OSError as error:
        raise LibraryMissing(f"{path} cannot be loaded: {error}") from error
    return Library(str(path), calls, kept)


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Discard what is written to descriptor 2.

    Without a device libqat writes "Cannot open /dev/vfio" there at every qzInit, and 1.2 has no log
    level to prevent it. A user gets one line from us instead. Not for processes with several threads.
    """
    saved = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(sink)
        os.close(saved)
