"""Find and open libqatzip; which symbols this version has.

One soname, `libqatzip.so.3`, stands for 1.2, 1.3 and 2.0, so what a library can do is asked of
its symbols. It is looked for in this order: `QATZIP_LIBRARY` (a file, or a folder that holds
it), the loader's path, and the folder that `tools/get_qatzip.sh` fills.

Never opened in a process that later forks: a child that inherits a started user-space driver
is sent to unmapped DMA memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qat._libqatzip import ffi
from qat.status import LibraryMissing

SONAME = "libqatzip.so.3"
DEPENDENCIES = ("libusdm.so.0", "libqat.so.4")
UNPACKED_FOLDER = Path(__file__).resolve().parents[1] / ".qatzip"
LIBRARY_VARIABLE = "QATZIP_LIBRARY"

REQUIRED = ("qzInit", "qzCompress", "qzDecompress", "qzTeardownSession")
SETUPS = ("qzSetupSessionDeflateExt", "qzSetupSessionDeflate")


class Library:
    """An open libqatzip. `calls` holds its functions; `path` is what was opened."""

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
        """Whether this is `qat.emulator`: no device, whatever it answers."""
        return self.has("ramferry_emulated")

    def has(self, name: str) -> bool:
        """Whether this version exports the function."""
        if name not in self._has:
            try:
                self._has[name] = bool(getattr(self.calls, name))
            except (AttributeError, ffi.error):  # cffi's out-of-line mode raises its own
                self._has[name] = False
        return self._has[name]


def load() -> Library:
    """Open libqatzip. Raises LibraryMissing with all places that were tried."""
    named = os.environ.get(LIBRARY_VARIABLE)
    if named:
        path = Path(named)
        return _open(path / SONAME if path.is_dir() else path)
    failures = []
    for candidate in (Path(SONAME), UNPACKED_FOLDER / SONAME):
        try:
            return _open(candidate)
        except LibraryMissing as error:
            failures.append(str(error))
    raise LibraryMissing(
        f"{SONAME} was not found on the loader's path or in {UNPACKED_FOLDER}: "
        f"run tools/get_qatzip.sh, or set {LIBRARY_VARIABLE} ({'; '.join(failures)})"
    )


def _open(path: Path) -> Library:
    kept = []
    try:
        if len(path.parts) > 1:
            # Nothing tells the loader where a private folder's dependencies lie.
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
    """Send descriptor 2 nowhere meanwhile.

    Without a device libqat writes "Cannot open /dev/vfio" there on every qzInit, and 1.2 has no
    log level: a user gets one line from us instead. For a process with one thread.
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
