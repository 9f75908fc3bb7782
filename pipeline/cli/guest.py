"""The part of a command line that describes a guest: its RAM and how it writes.

Shared by `pipeline.run` and `tools.dirtyrate`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from guestmem.content import Content, Corpus, Image, files_under
from guestmem.patterns import NAMES, parse_pattern
from guestmem.ram import MIN_RAM_BYTES
from guestmem.segment import PAGE_BYTES
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
from pipeline.errors import UsageError

DEFAULT_SIZE_BYTES = 1 << 30
MAX_RAM_BYTES = PAGE_BYTES << 32
DEFAULT_FILLED = 0.9375
DEFAULT_DIRTY_RATE = "32M"
SELF_CHECK = "self-check"

T = TypeVar("T")


class OneLineParser(argparse.ArgumentParser):
    """argparse whose errors are one line, raised as UsageError."""

    def error(self, message: str) -> NoReturn:
        """Raise."""
        raise UsageError(f"{message} (see --help)")


@dataclass(frozen=True)
class RamOptions:
    """Guest RAM to make: its size in bytes, and what fills it."""

    size_bytes: int
    image: str | None
    fill: str | None
    filled: float

    def content(self) -> Content:
        """What fills guest RAM."""
        if self.image is not None:
            return Image(Path(self.image))
        return Corpus(None if self.fill is None else Path(self.fill), self.filled)


@dataclass(frozen=True)
class GuestOptions(RamOptions):
    """A guest to make: rates in bytes per second. `preset` and `phases` name a workload; without
    them rate, pattern, content and write size do."""

    dirty_rate: int | None
    dirty_pattern: str | None
    dirty_content: str | None
    write_bytes: int | None
    preset: str | None
    phases: str | None
    seed: int

    def workload(self) -> Workload:
        """How the guest writes."""
        if self.preset == SELF_CHECK:
            return self_check(self.dirty_rate or 0)
        if self.preset is not None:
            return replace(PRESETS[self.preset][1], seed=self.seed)
        if self.phases is not None:
            return load_phases(Path(self.phases), self.seed)
        assert self.dirty_rate is not None
        phase = Phase(
            self.dirty_rate,
            parse_pattern(self.dirty_pattern or "uniform"),
            self.dirty_content or "corpus",
            self.write_bytes or PAGE_BYTES,
        )
        return steady(phase, self.seed)

    def record(self) -> dict[str, Any]:
        """For a result file."""
        return asdict(self)


def add_ram_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options; `parse_ram` checks their values."""
    ram = parser.add_argument_group("guest RAM")
    add = ram.add_argument
    add("--size", metavar="SIZE", help="RAM of the guest, bytes (default 1G, or the image's)")
    add("--image", metavar="FILE", help="a raw RAM image to start from (default none)")
    add(
        "--fill",
        metavar="PATH",
        help="repeat the bytes of a file, or of all files under a folder, over RAM "
        "(default: the files of this Python)",
    )
    add(
        "--filled",
        metavar="SHARE",
        help=f"share of RAM that is filled, 0 to 1; the rest is zero (default {DEFAULT_FILLED})",
    )


def add_guest_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options, those of RAM too; `parse_guest` checks their values."""
    add_ram_arguments(parser)
    work = parser.add_argument_group("how the guest writes")
    add = work.add_argument
    add(
        "--dirty-rate",
        metavar="RATE",
        help=f"bytes written per second, 0 is idle (default {DEFAULT_DIRTY_RATE})",
    )
    add("--dirty-pattern", metavar="PATTERN", help=f"which pages: {NAMES} (default uniform)")
    add("--dirty-content", metavar="KIND", help=f"what bytes: {', '.join(CONTENTS)} (default corpus)")
    add("--write-bytes", metavar="SIZE", help="bytes that a write changes, 1 to 4096 (default 4096)")
    names = ", ".join([*PRESETS, SELF_CHECK])
    add(
        "--preset",
        metavar="NAME",
        help=f"a workload by name, not the four above: {names} (default none)",
    )
    add("--phases", metavar="FILE", help="a workload of phases from a TOML file (default none)")
    add("--seed", metavar="N", help="seed of the guest's writes, 0 or more (default 1)")


def parse_ram(given: argparse.Namespace) -> RamOptions:
    """Check what `add_ram_arguments` added. Raises UsageError."""
    if given.image is not None and (given.fill is not None or given.filled is not None):
        raise UsageError("--image: a RAM image is used as it is; leave out --fill and --filled")
    filled = DEFAULT_FILLED if given.filled is None else _share("--filled", given.filled)
    return RamOptions(
        size_bytes=_size(given.size, given.image),
        image=given.image,
        fill=_readable_corpus(given.fill),
        filled=1.0 if given.image is not None else filled,
    )


def parse_guest(given: argparse.Namespace) -> GuestOptions:
    """Check what `add_guest_arguments` added. Raises UsageError."""
    ram = parse_ram(given)
    named = _named_workload(given)
    rate = given.dirty_rate
    if rate is None and (named is None or given.preset == SELF_CHECK):
        rate = DEFAULT_DIRTY_RATE
    pattern, content = given.dirty_pattern, given.dirty_content
    if pattern is not None:
        pattern = str(checked("--dirty-pattern", pattern, parse_pattern))
    options = GuestOptions(
        **asdict(ram),
        dirty_rate=None if rate is None else checked("--dirty-rate", rate, parse_rate),
        dirty_pattern=pattern or ("uniform" if named is None else None),
        dirty_content=checked("--dirty-content", content, parse_content)
        if content is not None
        else ("corpus" if named is None else None),
        write_bytes=checked("--write-bytes", given.write_bytes, parse_write_bytes)
        if given.write_bytes is not None
        else (PAGE_BYTES if named is None else None),
        preset=given.preset,
        phases=given.phases,
        seed=parse_within("--seed", given.seed or "1", 0, 2**63 - 1),
    )
    try:
        options.workload()
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"--phases {given.phases}: {text}") from error
    return options


def _named_workload(given: argparse.Namespace) -> str | None:
    """The option that names a whole workload, if one does. Raises UsageError for a mixture."""
    if given.preset is not None and given.preset not in (*PRESETS, SELF_CHECK):
        raise UsageError(f"--preset {given.preset}: must be one of {', '.join([*PRESETS, SELF_CHECK])}")
    named = [option for option in ("preset", "phases") if getattr(given, option) is not None]
    if not named:
        return None
    settings = ["dirty_rate", "dirty_pattern", "dirty_content", "write_bytes"]
    if given.preset == SELF_CHECK:
        settings.remove("dirty_rate")
    others = named[1:] + [name for name in settings if getattr(given, name) is not None]
    if others:
        raise UsageError(f"--{named[0]} is a whole workload; leave out --{others[0].replace('_', '-')}")
    return named[0]


def checked(option: str, text: str, parse: Callable[[str], T]) -> T:
    """`parse(text)`, its ValueError as a UsageError that names option and value."""
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option} {text}: {error}") from error


def parse_within(option: str, text: str, low: int, high: int) -> int:
    """A whole number within limits. Raises UsageError."""
    try:
        value = int(text)
    except ValueError:
        raise UsageError(f"{option} {text}: not a whole number; must be {low} to {high}") from None
    if not low <= value <= high:
        raise UsageError(f"{option} {text}: must be {low} to {high}")
    return value


def parse_number(option: str, text: str) -> float:
    """A finite number. Raises UsageError."""
    try:
        number = float(text)
    except ValueError:
        raise UsageError(f"{option} {text}: not a number") from None
    if number != number or number in (float("inf"), float("-inf")):
        raise UsageError(f"{option} {text}: not a finite number")
    return number


def parse_bytes(option: str, text: str) -> int:
    """A size. Raises UsageError."""
    return checked(option, text, parse_size)


def _share(option: str, text: str) -> float:
    value = parse_number(option, text)
    if not 0 <= value <= 1:
        raise UsageError(f"{option} {text}: must be 0 to 1")
    return value


def _size(text: str | None, image: str | None) -> int:
    if image is None:
        size = DEFAULT_SIZE_BYTES if text is None else parse_bytes("--size", text)
        return _ram_size(f"--size {text}", size)
    path = Path(image)
    if not path.is_file():
        raise UsageError(f"--image {image}: no such file")
    if not os.access(path, os.R_OK):
        raise UsageError(f"--image {image}: cannot be read")
    size = _ram_size(f"--image {image} of {path.stat().st_size} bytes", path.stat().st_size)
    if text is not None and parse_bytes("--size", text) != size:
        raise UsageError(f"--size {text}: the image has {size} bytes; leave out --size")
    return size


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


def attach_negative(arguments: list[str]) -> list[str]:
    """`--size -1G` as `--size=-1G`: argparse takes what begins with a dash for an option."""
    attached: list[str] = []
    for argument in arguments:
        follows_option = attached and attached[-1].startswith("--") and "=" not in attached[-1]
        if argument[:1] == "-" and argument[1:2].isdigit() and follows_option:
            attached[-1] += "=" + argument
        else:
            attached.append(argument)
    return attached
