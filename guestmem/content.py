"""What fills guest RAM: a corpus, repeated, or an image of real memory.

QEMU's QATzip measurements filled 60 of 64 GB with the Silesia corpus, repeated (cover letter of
the patch series). `Corpus` does the same with any files.
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

from guestmem.images import ImageError, Layout, OnShare, Source, open_source, read_layout
from guestmem.images.source import Truncated
from guestmem.page import PAGE_BYTES, WORDS_PER_PAGE
from guestmem.ram import GuestRam
from guestmem.trace import TraceMemory
from guestmem.zero import normal_mask

NOT_PYTHONS_OWN = {"site-packages", "dist-packages", "__pycache__"}

POOL_PAGES = 4096
"""Pages of real content that the guest writes from: 16 MiB, more than any codec's window."""

CHUNK_BYTES = 16 << 20
"""Read or copied in one go, between two reports of how far the filling is."""


@dataclass(frozen=True)
class Corpus:
    """Files whose bytes, one after the other and repeated, fill the share `filled` of RAM (0 to 1).

    `path` is a file, or a folder for all files under it; None stands for the running Python's files.
    """

    path: Path | None
    filled: float

    def files(self) -> tuple[Path, ...]:
        """The files in the order of their bytes in RAM."""
        return python_files() if self.path is None else files_under(self.path)

    def fill(self, ram: GuestRam, on_share: OnShare | None = None) -> None:
        """Fill `ram`; what lies behind the filled part stays as it is. Raises OSError."""
        limit = int(ram.pages * self.filled) * PAGE_BYTES
        period = _read_files(self.files(), ram.memory[:limit], on_share)
        if period:
            _repeat(ram.memory[:limit], period, on_share)

    def pool(self, ram: GuestRam) -> npt.NDArray[np.uint64]:
        """Pages of the corpus for the guest to write, as (n, 512) uint64 with n at least 1.

        Raises OSError.
        """
        found = sample_normal_pages(ram)
        if len(found):
            return found
        return _pages_of_files(self.files())


class ImageChanged(Exception):
    """An image is not as long any more as it was when its guest was made; the message names it."""


@dataclass(frozen=True)
class Image:
    """A file of real memory, in any format of `guestmem.images`."""

    path: Path

    def fill(self, ram: GuestRam, on_share: OnShare | None = None) -> None:
        """Read the image into `ram`, which is all zero. Raises OSError; ImageChanged when the file does not
        hold as much as RAM has; ImageError for one that is damaged."""
        try:
            with open_source(self.path) as source:
                self._read(source, ram).fill(ram.memory, on_share)
            with open_source(self.path) as source:  # its size is asked when it is opened
                self._read(source, ram)
        except Truncated as error:
            raise self._fewer(ram) from error
        except ImageError as error:
            raise ImageError(f"{self.path}: {error}") from error

    def _read(self, source: Source, ram: GuestRam) -> Layout:
        """What the file holds now. Raises ImageChanged where that is not as much as RAM has; ImageError."""
        layout = read_layout(source)
        if layout.size_bytes < ram.size_bytes:
            raise self._fewer(ram)
        if layout.size_bytes > ram.size_bytes:
            raise ImageChanged(
                f"{self.path} had {ram.size_bytes} bytes and has {layout.size_bytes} now: it is being written"
            )
        return layout

    def _fewer(self, ram: GuestRam) -> ImageChanged:
        return ImageChanged(f"{self.path} holds fewer than the {ram.size_bytes} bytes it had")

    def pool(self, ram: GuestRam) -> npt.NDArray[np.uint64]:
        """Pages of the image, or of this Python's files when the image is all zero; see Corpus."""
        found = sample_normal_pages(ram)
        if len(found):
            return found
        return _pages_of_files(python_files())


Content = Corpus | Image | TraceMemory


def files_under(path: Path) -> tuple[Path, ...]:
    """`path` itself when it is a file, else every regular file under it, sorted by path."""
    if path.is_file():
        return (path,)
    return tuple(sorted(entry for entry in path.rglob("*") if entry.is_file()))


def python_files() -> tuple[Path, ...]:
    """The files of the running Python: machine code and text, on every host.

    Binaries and sources take turns, so that a small RAM holds both kinds. Installed packages and
    caches are left out, since they differ from one environment to the next.
    """
    sources: list[Path] = []
    others = [Path(sys.executable).resolve()]
    for folder, folders, names in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = sorted(set(folders) - NOT_PYTHONS_OWN)
        for name in sorted(names):
            (sources if name.endswith(".py") else others).append(Path(folder, name))
    return tuple(path for path in _interleave(others, sources) if path.is_file() and os.access(path, os.R_OK))


def _interleave(one: list[Path], other: list[Path]) -> Iterator[Path]:
    for index in range(max(len(one), len(other))):
        if index < len(one):
            yield one[index]
        if index < len(other):
            yield other[index]


def _read_files(paths: tuple[Path, ...], into: memoryview, on_share: OnShare | None = None) -> int:
    """Read the files, one after the other, until `into` is full; returns the bytes read."""
    done = 0
    for path in paths:
        if done == len(into):
            break
        with path.open("rb", buffering=0) as file:
            while done < len(into):
                count = file.readinto(into[done : done + CHUNK_BYTES])
                if not count:
                    break
                done += count
                if on_share is not None:
                    on_share(done / len(into))
    return done


def _repeat(memory: memoryview, period: int, on_share: OnShare | None) -> None:
    """Repeat the first `period` bytes of `memory` to its end, doubling what is there each time."""
    done = period
    while done < len(memory):
        end = min(2 * done, len(memory))
        for start in range(done, end, CHUNK_BYTES):
            stop = min(start + CHUNK_BYTES, end)
            memory[start:stop] = memory[start - done : stop - done]
            if on_share is not None:
                on_share(stop / len(memory))
        done = end


def _pages_of_files(paths: tuple[Path, ...]) -> npt.NDArray[np.uint64]:
    data = bytearray(POOL_PAGES * PAGE_BYTES)
    length = _read_files(paths, memoryview(data))
    pages = max(1, length // PAGE_BYTES)
    return np.frombuffer(data, np.uint64).reshape(-1, WORDS_PER_PAGE)[:pages]


def sample_normal_pages(ram: GuestRam) -> npt.NDArray[np.uint64]:
    """A copy of at most POOL_PAGES pages, evenly spaced over RAM, without the zero pages among them:
    (n, 512) uint64, where n may be 0.
    """
    chosen = np.unique(np.linspace(0, ram.pages - 1, min(POOL_PAGES, ram.pages)).astype(np.intp))
    pages = ram.words[chosen]
    return pages[normal_mask(pages)]
