"""Where a destination that is complete goes: as a raw image in a file, or as shared memory under a name.

Either appears at once and whole, or not at all: the bytes lie in a file without a name (O_TMPFILE)
until the last moment.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam
from guestmem.segment import SHM, create_segment
from pipeline.errors import HostError, UsageError

VALID_SHM_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Output:
    """Where the destination goes in the end; nowhere when both are None."""

    output: str | None = None
    shm_name: str | None = None

    def check(self) -> None:
        """Raises UsageError for a place that cannot be."""
        if self.output is not None and self.shm_name is not None:
            raise UsageError("--output and --output-shm: name one of them")
        if self.output is not None:
            path = Path(self.output)
            if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
                raise UsageError(f"--output {self.output}: name a file in a folder that can be written to")
        if self.shm_name is not None:
            if not VALID_SHM_NAME.fullmatch(self.shm_name) or self.shm_name.strip(".") == "":
                raise UsageError(
                    f"--output-shm {self.shm_name}: a name is 1 to 200 letters, digits, "
                    "dots, dashes or underscores"
                )
            if (SHM / self.shm_name).exists():
                raise UsageError(f"--output-shm {self.shm_name}: there is shared memory of this name already")

    def create(self, size_bytes: int) -> GuestRam:
        """The destination, of a kind that can be given its place later. Raises OSError."""
        if self.shm_name is None:
            return GuestRam(_sized(create_segment("destination", size_bytes), size_bytes), writable=True)
        fd = os.open(SHM, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        return GuestRam(_sized(fd, size_bytes), writable=True)

    def commit(self, ram: GuestRam) -> str:
        """Give it its place; in words where that is, or nothing. Raises HostError."""
        try:
            if self.shm_name is not None:
                _link(ram.fd, SHM / self.shm_name)
                return f"shared memory /{self.shm_name}"
            if self.output is not None:
                _write(ram, Path(self.output))
                return f"file {self.output}"
        except OSError as error:
            raise HostError(
                f"the copy cannot be written: {error.strerror}: {error.filename or ''}"
            ) from error
        return ""


def _sized(fd: int, size_bytes: int) -> int:
    os.ftruncate(fd, size_bytes)
    return fd


def _link(fd: int, path: Path) -> None:
    """Give a file without a name one (linkat(2) of /proc/self/fd, as open(2) says)."""
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=root, follow_symlinks=True)
    finally:
        os.close(root)


def _write(ram: GuestRam, path: Path) -> None:
    """Write the image beside its place, with holes where it is zero, and put it there."""
    fd = os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        os.ftruncate(fd, ram.size_bytes)
        pages = CHUNK_BYTES // PAGE_BYTES
        for first in range(0, ram.pages, pages):
            chunk = ram.words[first : first + pages]
            if chunk.any():
                _write_all(fd, chunk.data.cast("B"), first * PAGE_BYTES)
        os.fsync(fd)
        _link(fd, beside)
        beside.replace(path)
    finally:
        os.close(fd)


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    while len(data):
        done = os.pwrite(fd, data, offset)
        data, offset = data[done:], offset + done
