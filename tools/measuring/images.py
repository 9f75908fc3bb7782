"""Raw RAM images of four kinds of memory, for measurements that compare methods.

corpus          the files of --fill repeated over 15/16 of RAM, the rest zero (as QEMU's
                QATzip measurements filled it)
zero-rich       the same files over a quarter of RAM, in runs of 64 KiB between zero pages
incompressible  random bytes everywhere: encrypted or already compressed memory
mixed           regions of 16 MiB of each in turn
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from guestmem.content import Corpus
from guestmem.page import PAGE_BYTES, WORDS_PER_PAGE
from guestmem.ram import GuestRam

RUN_PAGES = (64 << 10) // PAGE_BYTES
REGION_PAGES = (16 << 20) // PAGE_BYTES
FILLED = 0.9375


def fill_corpus(ram: GuestRam, corpus: Path | None) -> None:
    """Corpus over 15/16 of RAM; the rest is zero."""
    Corpus(corpus, FILLED).fill(ram)


def fill_zero_rich(ram: GuestRam, corpus: Path | None) -> None:
    """Every fourth run of 64 KiB is corpus; the others are zero."""
    Corpus(corpus, 1.0).fill(ram)
    for start in range(0, ram.pages, 4 * RUN_PAGES):
        ram.words[start + RUN_PAGES : start + 4 * RUN_PAGES] = 0


def fill_incompressible(ram: GuestRam, corpus: Path | None) -> None:
    """Random bytes everywhere, the same ones in every run."""
    noise(ram, 0, ram.pages)


def fill_mixed(ram: GuestRam, corpus: Path | None) -> None:
    """Regions of 16 MiB of corpus, zero and noise in turn."""
    Corpus(corpus, 1.0).fill(ram)
    for number, start in enumerate(range(0, ram.pages, REGION_PAGES)):
        end = min(start + REGION_PAGES, ram.pages)
        if number % 3 == 1:
            ram.words[start:end] = 0
        elif number % 3 == 2:
            noise(ram, start, end)


def noise(ram: GuestRam, start: int, end: int) -> None:
    """Fill pages with random bytes, seeded with the number of the first page."""
    random = np.random.default_rng(start)
    for first in range(start, end, REGION_PAGES):
        count = min(REGION_PAGES, end - first)
        ram.words[first : first + count] = random.integers(0, 2**64, (count, WORDS_PER_PAGE), dtype=np.uint64)


KINDS: dict[str, Callable[[GuestRam, Path | None], None]] = {
    "corpus": fill_corpus,
    "zero-rich": fill_zero_rich,
    "incompressible": fill_incompressible,
    "mixed": fill_mixed,
}


def write_image(kind: str, size_bytes: int, corpus: Path | None, folder: Path) -> Path:
    """Write an image of that kind into a folder; returns its path. Raises OSError."""
    ram = GuestRam.create(size_bytes, f"image-{kind}")
    KINDS[kind](ram, corpus)
    path = folder / f"{kind}-{size_bytes >> 20}M.raw"
    with path.open("wb") as file:
        file.write(ram.memory)
    return path
