"""Raw RAM images of five kinds of memory, for measurements that compare methods.

corpus          the files of --fill repeated over 15/16 of RAM, the rest zero (as QEMU's
                QATzip measurements filled it)
zero-rich       the same files over a quarter of RAM, in runs of 64 KiB between zero pages
incompressible  random bytes everywhere: encrypted or already compressed memory
mixed           regions of 16 MiB of each in turn
guest           what a small Linux has in RAM after some seconds of work, under QEMU (tools/get_guest.sh)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from guestmem.content import Corpus
from guestmem.page import PAGE_BYTES, WORDS_PER_PAGE
from guestmem.ram import GuestRam
from guestmem.units import show_size
from pipeline.errors import HostError
from tools.measuring.progress import say
from tools.qemu.guest.machine import MIN_GUEST_BYTES, GuestOptions, guest_folder, live_guest
from tools.qemu.peer import find_qemu

RUN_PAGES = (64 << 10) // PAGE_BYTES
REGION_PAGES = (16 << 20) // PAGE_BYTES
FILLED = 0.9375
GUEST_SECONDS = 40
BLOCK_BYTES = 2 << 20


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


def fill_guest(ram: GuestRam, corpus: Path | None) -> None:
    """A real guest's. Raises HostError, RunFailed."""
    with live_guest(GuestOptions(ram.size_bytes, "busy", writer_mib=ram.size_bytes >> 24), ram) as machine:
        time.sleep(GUEST_SECONDS)
        machine.check_alive()
        machine.qmp.run("stop")


KINDS: dict[str, Callable[[GuestRam, Path | None], None]] = {
    "corpus": fill_corpus,
    "zero-rich": fill_zero_rich,
    "incompressible": fill_incompressible,
    "mixed": fill_mixed,
    "guest": fill_guest,
}


def kinds_here(asked: tuple[str, ...] | None, size_bytes: int) -> list[str]:
    """Those that were asked for; of all, those that this host can make in that size, and why not is said.

    Raises HostError for one that was asked for and cannot be made.
    """
    kinds = list(asked or KINDS)
    try:
        if "guest" in kinds:
            _check_guest(size_bytes)
    except HostError as error:
        if asked:
            raise
        say(f"without the guest's image: {error}")
        kinds.remove("guest")
    return kinds


def _check_guest(size_bytes: int) -> None:
    least = MIN_GUEST_BYTES["busy"]
    if size_bytes < least:
        raise HostError(f"a guest needs a --size of {show_size(least)} or more")
    guest_folder()
    find_qemu()


def write_image(kind: str, size_bytes: int, corpus: Path | None, folder: Path) -> Path:
    """Write an image of that kind into a folder; returns its path. Raises OSError."""
    ram = GuestRam.create(size_bytes, f"image-{kind}")
    KINDS[kind](ram, corpus)
    path = folder / f"{kind}-{size_bytes >> 20}M.raw"
    with path.open("wb") as file:
        file.write(ram.memory)
    return path


def thinned(image: Path, keep_every: int) -> Path:
    """One of so many blocks of 2 MiB of an image, beside it, made once; itself for 1. Raises OSError."""
    if keep_every == 1:
        return image
    part = image.with_name(f"{image.stem}-{keep_every}.raw")
    if not part.exists():
        with image.open("rb") as whole, part.open("wb") as kept:
            for start in range(0, image.stat().st_size, keep_every * BLOCK_BYTES):
                whole.seek(start)
                kept.write(whole.read(BLOCK_BYTES))
    return part
