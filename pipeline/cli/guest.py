"""The part of a command line that describes a guest: its RAM and how it writes."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, replace
from pathlib import Path

from guestmem.content import files_under
from guestmem.guest import VALID_NAME
from guestmem.images import ImageError, Layout, open_source, read_layout
from guestmem.page import PAGE_BYTES
from guestmem.patterns import NAMES, parse_pattern
from guestmem.ram import MIN_RAM_BYTES
from guestmem.trace import load_trace
from guestmem.units import parse_size, show_size
from guestmem.workload import (
    CONTENTS,
    PRESETS,
    Phase,
    Workload,
    load_phases,
    parse_content,
    parse_rate,
    parse_write_bytes,
    self_check,
    steady,
)
from pipeline.cli.values import Given, checked, option_of
from pipeline.errors import UsageError
from pipeline.options import (
    DEFAULT_DIRTY_RATE,
    DEFAULT_FILLED,
    DEFAULT_SEED,
    DEFAULT_SIZE_BYTES,
    MAX_RAM_BYTES,
    SELF_CHECK,
    GuestOptions,
    RamOptions,
)

MOST_RANGES_TOLD = 100
RAM_OPTIONS = ("size", "image", "fill", "filled")
SETTINGS = ("dirty_rate", "dirty_pattern", "dirty_content", "write_bytes")
GUEST_OPTIONS = (*RAM_OPTIONS, *SETTINGS, "preset", "phases", "seed")
PRESET_NAMES = (*PRESETS, SELF_CHECK)
TRACE = "trace:"
"""As what a preset begins with: a file of `guestmem.trace`."""

DEFAULT_PATTERN, DEFAULT_CONTENT = "uniform", "corpus"


def add_ram_arguments(parser: argparse.ArgumentParser) -> None:
    """Guest RAM to make; `read_ram` checks the values."""
    add = parser.add_argument_group("guest RAM").add_argument
    size = show_size(DEFAULT_SIZE_BYTES)
    add("--size", metavar="SIZE", help=f"RAM of the guest, bytes (default {size}, or the image's)")
    add(
        "--image",
        metavar="FILE",
        help="start from an image of real memory: raw, QEMU mapped-ram (libvirt's save too), ELF core, "
        "kdump, LiME; the file says which (default none)",
    )
    add(
        "--fill",
        metavar="PATH",
        help="fill RAM with the bytes of a file, or of all files under a folder, over and over "
        "(default: the files of this Python)",
    )
    add(
        "--filled",
        metavar="SHARE",
        help=f"share of RAM that is filled, 0 to 1; the rest is zero (default {DEFAULT_FILLED})",
    )


def add_guest_arguments(parser: argparse.ArgumentParser) -> None:
    """A guest to make, its RAM too; `read_guest` checks the values."""
    add_ram_arguments(parser)
    add = parser.add_argument_group("how the guest writes").add_argument
    add(
        "--dirty-rate",
        metavar="RATE",
        help=f"bytes written per second, 0 is an idle guest (default {DEFAULT_DIRTY_RATE})",
    )
    add("--dirty-pattern", metavar="PATTERN", help=f"which pages: {NAMES} (default {DEFAULT_PATTERN})")
    add(
        "--dirty-content",
        metavar="KIND",
        help=f"what is written: {', '.join(CONTENTS)} (default {DEFAULT_CONTENT})",
    )
    add(
        "--write-bytes",
        metavar="SIZE",
        help=f"bytes that a write changes, 1 to {PAGE_BYTES} (default {PAGE_BYTES})",
    )
    add(
        "--preset",
        metavar="NAME",
        help=f"a whole workload, in place of the four above: {', '.join(PRESET_NAMES)}, "
        "trace:FILE for a real guest's, with its RAM (default none)",
    )
    add("--phases", metavar="FILE", help="a workload of phases from a TOML file (default none)")
    add("--seed", metavar="N", help=f"seed of the guest's writes, 0 or more (default {DEFAULT_SEED})")


def read_ram(given: Given) -> RamOptions:
    """What `add_ram_arguments` added. Raises UsageError."""
    if given.has("image"):
        given.refuse(("fill", "filled"), "a RAM image is used as it is; leave this out, or --image")
    image = given.text("image")
    if image is not None:
        return _image(given, image)
    return RamOptions(
        size_bytes=_size(given),
        image=None,
        fill=_readable_corpus(given.text("fill")),
        filled=given.number("filled", 0, 1, "", DEFAULT_FILLED),
        image_format=None,
        image_ranges=(),
    )


def read_guest(given: Given, *, self_checking: bool = False) -> GuestOptions:
    """What `add_guest_arguments` added. `self_checking`: by default the workload is the self-check.

    Raises UsageError.
    """
    preset = given.text("preset")
    ram = read_ram(given) if _trace_of(preset) is None else _trace_ram(given, str(preset))
    if preset is None and self_checking:
        preset = SELF_CHECK
    named = _named_workload(given, preset)
    rate: int | None = given.rate("dirty_rate", parse_rate(DEFAULT_DIRTY_RATE))
    if named and preset != SELF_CHECK:
        rate = None
    pattern = given.text("dirty_pattern") or DEFAULT_PATTERN
    seed = given.whole("seed", 0, 2**63 - 1, DEFAULT_SEED)
    phase = Phase(
        rate or 0,
        checked("--dirty-pattern", pattern, parse_pattern),
        given.parsed("dirty_content", parse_content, DEFAULT_CONTENT),
        given.parsed("write_bytes", parse_write_bytes, PAGE_BYTES),
    )
    return GuestOptions(
        **asdict(ram),
        dirty_rate=rate,
        dirty_pattern=None if named else str(phase.pattern),
        dirty_content=None if named else phase.content,
        write_bytes=None if named else phase.write_bytes,
        preset=preset,
        phases=given.text("phases"),
        seed=seed,
        workload=_workload(phase, preset, given.text("phases"), seed),
    )


def _workload(phase: Phase, preset: str | None, phases: str | None, seed: int) -> Workload:
    if preset == SELF_CHECK:
        return self_check(phase.rate_bytes_per_second)
    if (trace := _trace_of(preset)) is not None:
        return Workload((), seed=seed, trace=trace)
    if preset is not None:
        return replace(PRESETS[preset][1], seed=seed)
    if phases is None:
        return steady(phase, seed)
    try:
        return load_phases(Path(phases), seed)
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"--phases {phases}: {text}") from error


def _named_workload(given: Given, preset: str | None) -> bool:
    """Whether a whole workload is named. Raises UsageError for a mixture."""
    if preset is not None and preset not in PRESET_NAMES and _trace_of(preset) is None:
        raise UsageError(f"--preset {preset}: must be one of {', '.join(PRESET_NAMES)}")
    named = [
        name for name, there in (("preset", preset), ("phases", given.text("phases"))) if there is not None
    ]
    if not named:
        return False
    replaced = [name for name in SETTINGS if not (preset == SELF_CHECK and name == "dirty_rate")]
    for name in (*named[1:], *replaced):
        if given.has(name):
            raise UsageError(f"{option_of(named[0])} is a whole workload; leave out {option_of(name)}")
    return True


def _trace_of(preset: str | None) -> Path | None:
    """The file of a preset that is a trace."""
    if preset is None or not preset.startswith(TRACE):
        return None
    return Path(preset.removeprefix(TRACE))


def _trace_ram(given: Given, preset: str) -> RamOptions:
    """The RAM of a trace's guest. Raises UsageError."""
    given.refuse((*RAM_OPTIONS, "seed"), f"--preset {preset} has its own RAM and writes; leave this out")
    path = _trace_of(preset)
    assert path is not None
    try:
        size = load_trace(path).ram_pages * PAGE_BYTES
    except OSError as error:
        raise UsageError(f"--preset {preset}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"--preset {preset}: {error}") from error
    return RamOptions(_ram_size(f"--preset {preset} of {size} bytes", size), None, None, 1.0, None, ())


def read_guest_name(option: str, text: str) -> str:
    """A name a guest may have. Raises UsageError."""
    if not VALID_NAME.fullmatch(text):
        raise UsageError(f"{option} {text}: a name is 1 to 64 letters, digits, dots, dashes or underscores")
    return text


def read_attach(given: Given) -> str | None:
    """The guest that is to be visited; options that would make another one are refused."""
    name = given.text("attach")
    if name is None:
        return None
    given.refuse(GUEST_OPTIONS, f"--attach {name} visits a guest that is there already; leave this out")
    return read_guest_name("--attach", name)


def _size(given: Given) -> int:
    text = given.text("size")
    if text is None:
        return DEFAULT_SIZE_BYTES
    return _ram_size(f"--size {text}", checked("--size", text, parse_size))


def _image(given: Given, image: str) -> RamOptions:
    layout = _layout(image)
    size = _ram_size(f"--image {image} of {layout.size_bytes} bytes", layout.size_bytes)
    text = given.text("size")
    if text is not None and checked("--size", text, parse_size) != size:
        raise UsageError(f"--size {text}: the image has {size} bytes; leave out --size")
    told = tuple(asdict(one) for one in layout.ranges[:MOST_RANGES_TOLD])
    return RamOptions(size, image, None, 1.0, layout.format, told)


def _layout(image: str) -> Layout:
    """What an image holds: a file, or a block device."""
    path = Path(image)
    if not path.exists():
        raise UsageError(f"--image {image}: no such file")
    if not path.is_file() and not path.is_block_device():
        raise UsageError(f"--image {image}: is neither a file nor a block device")
    try:
        with open_source(path) as source:
            return read_layout(source)
    except ImageError as error:
        raise UsageError(f"--image {image}: {error}") from error
    except OSError as error:
        raise UsageError(f"--image {image}: cannot be read ({error.strerror})") from error


def _ram_size(what: str, size: int) -> int:
    if not MIN_RAM_BYTES <= size <= MAX_RAM_BYTES or size % PAGE_BYTES:
        raise UsageError(
            f"{what}: must be a multiple of the page ({PAGE_BYTES} bytes), "
            f"{show_size(MIN_RAM_BYTES)} to {show_size(MAX_RAM_BYTES)}"
        )
    return size


def _readable_corpus(text: str | None) -> str | None:
    if text is None:
        return None
    path = Path(text)
    if not path.exists():
        raise UsageError(f"--fill {text}: no such file or folder")
    if not path.is_file() and not path.is_dir():
        raise UsageError(f"--fill {text}: neither a file nor a folder")
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise UsageError(f"--fill {text}: cannot be read")
    paths = files_under(path)
    for file in paths:
        if not os.access(file, os.R_OK):
            raise UsageError(f"--fill {text}: {file} cannot be read")
    if not any(file.stat().st_size for file in paths):
        raise UsageError(f"--fill {text}: holds no bytes")
    return text
