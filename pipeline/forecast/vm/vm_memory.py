"""Pages of a running VM: out of its shared memory file, read only, or by `pmemsave` of small pieces."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from guestmem.page import WORDS_PER_PAGE
from pipeline.forecast.packet_size import PACKET_BYTES
from pipeline.forecast.sample import Words
from pipeline.processes.signals import raise_if_cancelled
from pipeline.qemu.commands import Commands
from pipeline.qemu.monitor import MonitorError

PIECES_BY_PMEMSAVE, PIECES_OF_FILE = 128, 192
PIECE_BYTES = PACKET_BYTES
FIRST_ADDRESS, LOW_END, HIGH_BEGIN = 1 << 20, 2 << 30, 4 << 30
"""Of RAM that lies the same on all x86 machines: below 1 MiB are ROMs, and a large RAM goes on at 4 GiB."""

MEMFD = "/memfd:memory-backend-memfd"
"""What a memory-backend-memfd's descriptor is called in /proc (QEMU backends/hostmem-memfd.c)."""


class NoContent(Exception):
    """Why no page can be read."""


@dataclass
class Cost:
    """What reading memory cost the guest: how long its monitor's calls took, all and the longest, since those
    that read its memory hold QEMU's lock. `how` is `pmemsave` or `file`, which asks QEMU nothing."""

    how: str = "pmemsave"
    calls: int = 0
    total_ms: float = 0.0
    longest_ms: float = 0.0

    def note(self, took_ms: float) -> None:
        """One call."""
        self.calls += 1
        self.total_ms += took_ms
        self.longest_ms = max(self.longest_ms, took_ms)


class Memory(Protocol):
    """A VM's RAM, to be read in pieces."""

    cost: Cost

    def places(self) -> list[int]:
        """Where to read: spread over RAM, the same ones each time."""

    def piece(self, place: int) -> Words | None:
        """Pages of a place; None where there is no RAM. Raises NoContent."""


@contextlib.contextmanager
def memory_of(monitor: Commands, size: int, pid: int | None) -> Iterator[Memory]:
    """Its file where this user may read it, else by pmemsave. `pid` is QEMU's, where it is known."""
    fd = _file_of(monitor, size, pid)
    if fd is not None:
        try:
            yield _File(fd, size)
        finally:
            os.close(fd)
        return
    with tempfile.TemporaryDirectory(prefix="ramferry-look-") as folder:
        yield _Pmemsave(monitor, size, Path(folder))


def pieces(memory: Memory) -> dict[int, Words]:
    """Pages by place. Raises NoContent where there are none."""
    found: dict[int, Words] = {}
    for place in memory.places():
        raise_if_cancelled()
        pages = memory.piece(place)
        if pages is not None:
            found[place] = pages
    if not found:
        raise NoContent("no piece of its memory could be read")
    return found


def _some_of(places: list[int], most: int) -> list[int]:
    chance = np.random.default_rng(1)
    count = min(len(places), most)
    return [places[index] for index in sorted(chance.choice(len(places), count, replace=False).tolist())]


def _words(data: bytes) -> Words:
    return np.frombuffer(data, np.uint64).reshape(-1, WORDS_PER_PAGE)


# -------------------------------------------------------------------- by pmemsave


class _Pmemsave:
    """Pieces go through a file of 0600 in a folder of this user's, which is emptied at once."""

    def __init__(self, monitor: Commands, size: int, folder: Path) -> None:
        self.cost = Cost()
        self._monitor, self._size = monitor, size
        self._file = folder / "piece"
        self._file.touch(0o600)

    def places(self) -> list[int]:
        size = self._size
        low = range(FIRST_ADDRESS, min(size, LOW_END) - PIECE_BYTES, PIECE_BYTES)
        high = range(HIGH_BEGIN, HIGH_BEGIN + max(0, size - LOW_END) - PIECE_BYTES, PIECE_BYTES)
        return _some_of([*low, *high], PIECES_BY_PMEMSAVE)

    def piece(self, place: int) -> Words | None:
        began = time.monotonic()
        try:
            self._monitor.run("pmemsave", val=place, size=PIECE_BYTES, filename=str(self._file))
        except MonitorError as error:
            why = str(error)
            if "permission" in why.lower() or "could not open" in why.lower():
                raise NoContent(
                    f"QEMU may not write to {self._file.parent} ({why}): another user, AppArmor or SELinux"
                ) from error
            return None
        finally:
            self.cost.note((time.monotonic() - began) * 1e3)
        data = self._file.read_bytes()
        os.truncate(self._file, 0)
        if not data:
            raise NoContent(f"what QEMU wrote to {self._file.parent} is not here: it may see another /tmp")
        return _words(data) if len(data) == PIECE_BYTES else None


# -------------------------------------------------------------------- out of the file


class _File:
    """All of RAM in one file, which QEMU shares. Nothing is mapped, so a hole stays a hole."""

    def __init__(self, fd: int, size: int) -> None:
        self.cost = Cost("file")
        self._fd, self._size = fd, size

    def places(self) -> list[int]:
        return _some_of([*range(0, self._size - PIECE_BYTES + 1, PIECE_BYTES)], PIECES_OF_FILE)

    def piece(self, place: int) -> Words | None:
        try:
            data = os.pread(self._fd, PIECE_BYTES, place)
        except OSError as error:
            raise NoContent(f"its memory file cannot be read ({error.strerror})") from error
        return _words(data) if len(data) == PIECE_BYTES else None


def _file_of(monitor: Commands, size: int, pid: int | None) -> int | None:
    """A descriptor of the file that holds all of RAM; None where there is none that this user may read."""
    try:
        backends = [one for one in monitor.run("query-memdev") if one.get("share") and one["size"] == size]
        if len(backends) != 1 or "id" not in backends[0]:
            return None
        place = f"/objects/{backends[0]['id']}"
        kind = monitor.run("qom-get", path=place, property="type")
        if kind == "memory-backend-file":
            path = str(monitor.run("qom-get", path=place, property="mem-path"))
            return _opened(_seen_from_here(path, pid), size)
    except MonitorError:
        return None
    if kind == "memory-backend-memfd" and pid is not None:
        return _memfd_of(pid, size)
    return None


def _seen_from_here(path: str, pid: int | None) -> str:
    """A path as QEMU has it: its own `/proc/self` is another than ours."""
    own = "/proc/self/"
    return f"/proc/{pid}/{path.removeprefix(own)}" if path.startswith(own) and pid is not None else path


def _memfd_of(pid: int, size: int) -> int | None:
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            if os.readlink(entry).startswith(MEMFD):
                return _opened(str(entry), size)
    except OSError:
        pass
    return None


def _opened(path: str, size: int) -> int | None:
    """Read only; None for what is not a file of exactly this size."""
    if not path.startswith("/") or path.startswith("/proc/self/"):
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_size == size:
        return fd
    os.close(fd)
    return None
