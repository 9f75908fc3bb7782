"""What the guest does: phases, each with a rate, a pattern and a content.

A rate is bytes written per second. A write is `write_bytes` of one page, by default a whole page.
The contents `delta` and `increment` change fewer bytes, but count as `write_bytes` too: a migration
moves whole pages, whatever was written in them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from guestmem.page import PAGE_BYTES
from guestmem.patterns import SEQUENTIAL, UNIFORM, Pattern, parse_pattern
from guestmem.units import parse_bytes_per_second, parse_size

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same library, under the name it had before it was Python's own
    import tomli as tomllib

CONTENTS = ("corpus", "random", "zero", "constant", "delta")
INCREMENT = "increment"
"""The content of the self-check: one byte of each page is incremented, page after page in order, for
ever (QEMU's migration tests, check_guests_ram). Only `self_check` makes a workload of it."""

MAX_RATE = 1 << 44
"""Bytes per second."""

HELD_SHARE = 0.95
"""A guest that reaches less than this share of the rate it was asked for did not hold the rate."""


@dataclass(frozen=True)
class Phase:
    """A stretch of work. With `seconds` 0 it lasts for ever; a rate of 0 is an idle guest."""

    rate_bytes_per_second: int
    pattern: Pattern = UNIFORM
    content: str = "corpus"
    write_bytes: int = PAGE_BYTES
    seconds: float = 0.0


@dataclass(frozen=True)
class Workload:
    """Phases, one after the other. After the last the guest begins again (`loop`) or is idle. Or a trace that
    is replayed (`guestmem.trace`), and no phases."""

    phases: tuple[Phase, ...]
    loop: bool = True
    seed: int = 1
    trace: Path | None = None

    @property
    def self_checking(self) -> bool:
        """Whether `guestmem.selfcheck` can judge a copy of this guest's RAM without the source."""
        return bool(self.phases) and self.phases[0].content == INCREMENT


def steady(phase: Phase, seed: int = 1) -> Workload:
    """A workload of one phase that lasts for ever."""
    return Workload((replace(phase, seconds=0.0),), seed=seed)


def self_check(rate_bytes_per_second: int) -> Workload:
    """The workload whose copies `guestmem.selfcheck` can judge."""
    return steady(Phase(rate_bytes_per_second, SEQUENTIAL, INCREMENT))


PRESETS: dict[str, tuple[str, Workload]] = {
    "idle-desktop": (
        "a desktop that nobody touches: timers, a browser tab and logs write a few MB/s, nearly all "
        "into the same few per cent of RAM, and mostly change a few bytes of a page",
        Workload((Phase(3 << 20, Pattern("hotspot", (0.95, 0.02)), "delta"),)),
    ),
    "database": (
        "a buffer pool under an OLTP load: skew 0.99 as in YCSB, rows of some hundred bytes change "
        "in pages of real content, and every 20 s a checkpoint writes a sequential burst",
        Workload(
            (
                Phase(64 << 20, Pattern("zipf", (0.99,)), "corpus", 512, 20.0),
                Phase(128 << 20, SEQUENTIAL, "corpus", PAGE_BYTES, 4.0),
            )
        ),
    ),
    "build": (
        "a compile host: processes come and go, so that new pages are zeroed, then filled with "
        "text and machine code all over RAM, in bursts with pauses for linking and for the disk",
        Workload(
            (
                Phase(96 << 20, UNIFORM, "zero", PAGE_BYTES, 1.0),
                Phase(192 << 20, UNIFORM, "corpus", PAGE_BYTES, 4.0),
                Phase(16 << 20, UNIFORM, "corpus", PAGE_BYTES, 2.0),
            )
        ),
    ),
    "memory-stress": (
        "the worst case: as QEMU's stress program does, it sweeps all of RAM as fast as one process "
        "can, but with bytes that do not compress",
        Workload((Phase(16 << 30, SEQUENTIAL, "random"),)),
    ),
}
"""Workloads named for what they imitate, each with the reason for its numbers."""


def load_phases(path: Path, seed: int = 1) -> Workload:
    """Read a workload from a TOML file.

        loop = true                  # default true
        [[phase]]
        rate = "64M"                 # bytes per second; or bits, "500Mbit"
        pattern = "zipf:1.1"         # default uniform
        content = "corpus"           # default corpus
        write-bytes = 4096           # default a page
        seconds = 10                 # default 0: for ever

    Raises OSError; ValueError, which names the phase, the key and what is valid.
    """
    try:
        document = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"not TOML: {error}") from error
    unknown = set(document) - {"loop", "phase"}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r}; valid are loop and phase")
    loop, phases = document.get("loop", True), document.get("phase")
    if not isinstance(loop, bool) or not isinstance(phases, list) or not phases:
        raise ValueError("must hold at least one [[phase]], and loop must be true or false")
    read = tuple(_phase(number, table) for number, table in enumerate(phases, 1))
    if any(not phase.seconds for phase in read[:-1]):
        raise ValueError("only the last phase may last for ever (seconds = 0)")
    return Workload(read, loop, seed)


def _phase(number: int, table: Any) -> Phase:
    where = f"phase {number}"
    valid = {"rate", "pattern", "content", "write-bytes", "seconds"}
    if not isinstance(table, dict) or set(table) - valid or "rate" not in table:
        raise ValueError(f"{where}: needs rate, and may have {', '.join(sorted(valid - {'rate'}))}")
    try:
        rate = parse_rate(str(table["rate"]))
        pattern = parse_pattern(str(table.get("pattern", "uniform")))
        content = parse_content(str(table.get("content", "corpus")))
        size = parse_write_bytes(str(table.get("write-bytes", PAGE_BYTES)))
        seconds = float(table.get("seconds", 0))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    if not 0 <= seconds < 1e9:
        raise ValueError(f"{where}: seconds {seconds:g} must be 0 or more")
    return Phase(rate, pattern, content, size, seconds)


def parse_rate(text: str) -> int:
    """A rate in bytes per second: `64M`, `1Gbit`, `0`. Raises ValueError, which says what is valid."""
    rate = parse_bytes_per_second(text)
    if not 0 <= rate <= MAX_RATE:
        raise ValueError("must be 0 to 16T bytes per second")
    return rate


def parse_content(text: str) -> str:
    """One of CONTENTS. Raises ValueError, which names them."""
    if text not in CONTENTS:
        raise ValueError(f"must be one of {', '.join(CONTENTS)}")
    return text


def parse_write_bytes(text: str) -> int:
    """The bytes of a page that one write changes, 1 to PAGE_BYTES. Raises ValueError."""
    size = parse_size(text)
    if not 1 <= size <= PAGE_BYTES:
        raise ValueError(f"must be 1 to {PAGE_BYTES} bytes")
    return size
