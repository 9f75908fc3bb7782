"""Where a destination that is complete goes: as a raw image in a file, or as shared memory under a name.

Its place is reserved before anything is received, so that a full disk is found out then. Either appears at
once and whole, or not at all: until the last moment the bytes lie in a file without a name (O_TMPFILE); on a
file system that has none (NFS, some FUSE), in a hidden file beside it, which only `kill -9` leaves behind.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from guestmem.all_cores import by_all_cores
from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam
from guestmem.segment import SHM, create_segment
from guestmem.units import show_size
from pipeline.errors import HostError, UsageError
from pipeline.processes.descriptors import names_descriptor

VALID_SHM_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
CHUNK_BYTES = 1 << 20

FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
"""linux/falloc.h."""

NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)
"""What open(2) says to O_TMPFILE where the file system or the kernel has none."""

_libc = ctypes.CDLL(None, use_errno=True)


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
            if names_descriptor(path):
                raise UsageError(f"--output {self.output}: is an open stream; name a file")
            try:
                path.resolve()
            except (OSError, RuntimeError) as error:
                raise UsageError(f"--output {self.output}: is a link that leads to itself") from error
            if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
                raise UsageError(f"--output {self.output}: name a file in a folder that can be written to")
            if not _is_free(path):
                raise UsageError(f"--output {self.output}: is not a regular file; name another")
            try:
                _Place(path.resolve()).give_up()
            except OSError as error:
                raise UsageError(
                    f"--output {self.output}: no file can be made there ({error.strerror}); name another"
                ) from error
        if self.shm_name is not None:
            if not VALID_SHM_NAME.fullmatch(self.shm_name) or self.shm_name.strip(".") == "":
                raise UsageError(
                    f"--output-shm {self.shm_name}: a name is 1 to 200 letters, digits, "
                    "dots, dashes or underscores"
                )
            if (SHM / self.shm_name).exists():
                raise UsageError(f"--output-shm {self.shm_name}: there is shared memory of this name already")

    def reserve(self, size_bytes: int) -> Reservation:
        """A destination of so many bytes, and room for it at its place. Raises OSError, HostError."""
        if self.shm_name is not None:
            fd = os.open(SHM, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            return _NamedMemory(_sized(fd, size_bytes), SHM / self.shm_name)
        ram = _sized(create_segment("destination", size_bytes), size_bytes)
        return Reservation(ram) if self.output is None else _File(ram, Path(self.output).resolve())


class Reservation:
    """A destination that goes nowhere in the end."""

    def __init__(self, ram: GuestRam) -> None:
        self.ram = ram

    def commit(self) -> str:
        """Give it its place; in words where that is, or nothing. Raises HostError."""
        return ""

    def give_up(self) -> None:
        """The run has failed: nothing of it is left."""


class _NamedMemory(Reservation):
    """Shared memory that gets a name."""

    def __init__(self, ram: GuestRam, path: Path) -> None:
        super().__init__(ram)
        self._path = path

    def commit(self) -> str:
        try:
            _link(self.ram.fd, self._path)
        except OSError as error:
            raise HostError(f"shared memory /{self._path.name} cannot be made: {error.strerror}") from error
        return f"shared memory /{self._path.name}"


class _Place:
    """An open file that is to stand at a path, and does not yet."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where the folder takes no file."""
        self._path = path
        self._beside = path.with_name(f".{path.name}.{os.getpid()}")
        self._has_name = False
        self.fd = self._open()

    def _open(self) -> int:
        try:
            return os.open(self._path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in NO_TMPFILE:
                raise
        fd = os.open(self._beside, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._has_name = True
        return fd

    def take(self) -> None:
        """The file stands there, in place of one that stood there before. Raises OSError."""
        if not _is_free(self._path):
            raise OSError(errno.EEXIST, "something that is no regular file stands there")
        if not self._has_name:
            _link(self.fd, self._beside)
            self._has_name = True
        self._beside.replace(self._path)
        self._has_name = False
        _sync_folder(self._path.parent)

    def give_up(self) -> None:
        """Close the file, which is gone unless it was given its place."""
        if self._has_name:
            self._beside.unlink(missing_ok=True)
            self._has_name = False
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class _File(Reservation):
    """A file whose room is taken before the first byte comes."""

    def __init__(self, ram: GuestRam, path: Path) -> None:
        """Raises HostError without room, or where the folder takes no file."""
        super().__init__(ram)
        self._path = path
        try:
            self._place = _Place(path)
        except OSError as error:
            raise self._cannot(error) from error
        try:
            _allocate(self._place.fd, ram.size_bytes)
        except OSError as error:
            self.give_up()
            raise self._cannot(error) from error

    def commit(self) -> str:
        try:
            _copy(self.ram, self._place.fd)
            os.fsync(self._place.fd)
            self._place.take()
        except OSError as error:
            raise self._cannot(error) from error
        finally:
            self.give_up()
        return f"file {self._path}"

    def give_up(self) -> None:
        self._place.give_up()

    def _cannot(self, error: OSError) -> HostError:
        why = error.strerror or type(error).__name__
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            there = os.statvfs(self._path.parent)
            left = show_size(there.f_bavail * there.f_frsize)
            why = f"{why}: it needs {show_size(self.ram.size_bytes)}, and {left} are left there"
        return HostError(f"the copy cannot be written to {self._path}: {why}")


def _is_free(path: Path) -> bool:
    """Whether a file may be put there: nothing, or a regular file, behind links too."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return not path.is_symlink()  # a link to nowhere is somebody's mistake, or trap


def _sized(fd: int, size_bytes: int) -> GuestRam:
    os.ftruncate(fd, size_bytes)
    return GuestRam(fd, writable=True)


def _allocate(fd: int, size_bytes: int) -> None:
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(fd, size_bytes)  # a file system that cannot reserve finds out when it is written


def _copy(ram: GuestRam, fd: int) -> None:
    """Write the image, with holes where it is zero."""
    pages = CHUNK_BYTES // PAGE_BYTES

    def keep(first: int) -> None:
        chunk = ram.words[first : first + pages]
        if chunk.any():
            _write_all(fd, chunk.data.cast("B"), first * PAGE_BYTES)
        else:
            _punch(fd, first * PAGE_BYTES, chunk.nbytes)

    for _ in by_all_cores(keep, range(0, ram.pages, pages)):
        pass


def _punch(fd: int, offset: int, length: int) -> None:
    """Give reserved bytes back: they read as zero. Where that cannot be done they are zero anyway."""
    mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length))


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    while len(data):
        done = os.pwrite(fd, data, offset)
        data, offset = data[done:], offset + done


def _link(fd: int, path: Path) -> None:
    """Give a file without a name one (linkat(2) of /proc/self/fd, as open(2) says)."""
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=root, follow_symlinks=True)
    finally:
        os.close(root)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
