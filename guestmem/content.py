"""What fills guest RAM: a corpus repeated, or a raw RAM image.

QEMU's QATzip measurements filled 60 of 64 GB with the repeated bytes of the Silesia corpus
(cover letter of the series); `Corpus` is that, with any files.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from guestmem.ram import WORDS_PER_PAGE, GuestRam
from guestmem.segment import PAGE_BYTES
from guestmem.zero import normal_mask

NOT_PYTHONS_OWN = {"site-packages", "dist-packages", "__pycache__"}

POOL_PAGES = 4096
"""Pages of real content that the guest writes from: 16 MiB, above any codec's window."""


@dataclass(frozen=True)
class Corpus:
    """Files whose bytes, one after the other and repeated, fill the first `filled` of RAM.

    `path` is a file, or a folder for all files under it; None is the running Python's own.
    """

    path: Path | None
    filled: float

    def files(self) -> tuple[Path, ...]:
        """The files, in the order in which they fill."""
        return python_files() if self.path is None else files_under(self.path)

    def fill(self, ram: GuestRam) -> None:
        """Fill `ram`; what lies behind the filled part stays zero. Raises OSError."""
        limit = int(ram.pages * self.filled) * PAGE_BYTES
        period = _read_files(self.files(), ram.memory[:limit])
        if period == 0:
            return
        done = period
        while done < limit:
            step = min(done, limit - done)
            ram.memory[done : done + step] = ram.memory[:step]
            done += step

    def pool(self, ram: GuestRam) -> npt.NDArray[np.uint64]:
        """Pages of the corpus for the guest to write: (n, 512) uint64, n at least 1."""
        found = sample_normal_pages(ram)
        if len(found):
            return found
        return _pages_of_files(self.files())


@dataclass(frozen=True)
class Image:
    """A raw RAM image: the file's bytes are the guest's RAM."""

    path: Path

    def fill(self, ram: GuestRam) -> None:
        """Read the image. Raises OSError, ValueError when the file is no longer of RAM's size."""
        if _read_files((self.path,), ram.memory) != ram.size_bytes:
            raise ValueError(f"{self.path} holds fewer than {ram.size_bytes} bytes")

    def pool(self, ram: GuestRam) -> npt.NDArray[np.uint64]:
        """Pages of the image, or of this Python's files when the image is all zero."""
        found = sample_normal_pages(ram)
        if len(found):
            return found
        return _pages_of_files(python_files())


Content = Corpus | Image


def files_under(path: Path) -> tuple[Path, ...]:
    """`path` itself when it is a file, else every regular file under it, in sorted order."""
    if path.is_file():
        return (path,)
    return tuple(sorted(entry for entry in path.rglob("*") if entry.is_file()))


def python_files() -> tuple[Path, ...]:
    """The files of the running Python: machine code and text, on every host.

    The interpreter and its extension modules first, so that a small RAM holds both kinds.
    Installed packages and caches are left out: they differ from one environment to the next.
    """
    sources: list[Path] = []
    others = [Path(sys.executable).resolve()]
    for folder, folders, names in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = sorted(set(folders) - NOT_PYTHONS_OWN)
        for name in sorted(names):
            (sources if name.endswith(".py") else others).append(Path(folder, name))
    return tuple(path for path in _interleave(others, sources) if path.is_file())


def _interleave(one: list[Path], other: list[Path]) -> Iterator[Path]:
    for index in range(max(len(one), len(other))):
        if index < len(one):
            yield one[index]
        if index < len(other):
            yield other[index]


def _read_files(paths: tuple[Path, ...], into: memoryview) -> int:
    done = 0
    for path in paths:
        if done == len(into):
            break
        with path.open("rb", buffering=0) as file:
            while done < len(into):
                count = file.readinto(into[done : done + (16 << 20)])
                if not count:
                    break
                done += count
    return done


def _pages_of_files(paths: tuple[Path, ...]) -> npt.NDArray[np.uint64]:
    data = bytearray(POOL_PAGES * PAGE_BYTES)
    length = _read_files(paths, memoryview(data))
    pages = max(1, length // PAGE_BYTES)
    return np.frombuffer(data, np.uint64).reshape(-1, WORDS_PER_PAGE)[:pages]


def sample_normal_pages(ram: GuestRam) -> npt.NDArray[np.uint64]:
    """Up to POOL_PAGES normal pages, taken evenly over the whole of RAM: a copy."""
    chosen = np.unique(np.linspace(0, ram.pages - 1, min(POOL_PAGES, ram.pages)).astype(np.intp))
    pages = ram.words[chosen]
    return pages[normal_mask(pages)]
