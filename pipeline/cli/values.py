"""Values of a command line: each is checked, and an error names the option, the value and what is valid."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from guestmem.units import parse_size, show_size
from guestmem.workload import parse_rate
from pipeline.errors import UsageError
from pipeline.processes.descriptors import names_descriptor
from pipeline.report.files import can_be_made

T = TypeVar("T")


class Given:
    """A command line as it was given: None where an option was left out.

    Every method raises UsageError for a value that is not valid.
    """

    def __init__(self, namespace: argparse.Namespace) -> None:
        self._values = vars(namespace)

    def has(self, name: str) -> bool:
        """Whether the option was given. Flags are added with default=None, so that this can be told."""
        return self._values[name] is not None

    def knows(self, name: str) -> bool:
        """Whether the command has such an option."""
        return name in self._values

    def flag(self, name: str) -> bool:
        return bool(self._values[name])

    def text(self, name: str) -> str | None:
        value = self._values[name]
        return None if value is None else str(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """All values of an option that may be given several times."""
        return tuple(self._values[name] or ())

    def rest(self, name: str) -> list[str]:
        """Positional arguments."""
        return list(self._values[name])

    def refuse(self, names: Iterable[str], why: str) -> None:
        """None of these options may be given; `why` says what to do."""
        for name in names:
            if self.has(name):
                written = f"no_{name}" if self._values[name] is False else name
                raise UsageError(f"{option_of(written)}: {why}")

    def parsed(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """`parse(text)`, whose ValueError says what is wrong."""
        text = self.text(name)
        return default if text is None else checked(option_of(name), text, parse)

    def whole(self, name: str, low: int, high: int, default: int) -> int:
        """A whole number within limits."""
        text = self.text(name)
        return default if text is None else parse_within(option_of(name), text, low, high)

    def number(self, name: str, low: float, high: float, unit: str, default: float) -> float:
        """A finite number of `unit`, from `low` to `high`."""
        text = self.text(name)
        if text is None:
            return default
        value = parse_number(option_of(name), text)
        if not low <= value <= high:
            limits = f"{low:g} to {high:g}" if high != math.inf else f"{low:g} or more"
            raise UsageError(f"{option_of(name)} {text}: must be {limits} {unit}".rstrip())
        return value

    def above_zero(self, name: str, high: float, unit: str, default: float) -> float:
        """A number of `unit` above 0, and at most `high`."""
        if not self.has(name):
            return default
        value = self.number(name, -math.inf, math.inf, unit, default)
        if not 0 < value <= high:
            raise UsageError(
                f"{option_of(name)} {self.text(name)}: must be above 0 and at most {high:.15g} {unit}"
            )
        return value

    def size(self, name: str, low: int, high: int, default: int, *, multiple_of: int = 1) -> int:
        """Bytes within limits."""
        text = self.text(name)
        if text is None:
            return default
        value = checked(option_of(name), text, parse_size)
        if not low <= value <= high or value % multiple_of:
            unit = f"a multiple of {show_size(multiple_of)}, " if multiple_of > 1 else ""
            raise UsageError(f"{option_of(name)} {text}: must be {unit}{show_size(low)} to {show_size(high)}")
        return value

    def rate(self, name: str, default: int = 0) -> int:
        """Bytes per second."""
        return self.parsed(name, parse_rate, default)

    def choice(self, name: str, names: Sequence[str], default: str) -> str:
        """One of `names`."""
        text = self.text(name)
        return default if text is None else one_of(option_of(name), text, names)

    def new_file(self, name: str) -> str | None:
        """A file that can be written; `-` is standard output."""
        text = self.text(name)
        if text is not None and text != "-":
            check_target(option_of(name), Path(text))
        return text


def check_target(option: str, path: Path) -> None:
    """A file may be put there: nothing stands there yet, or a regular file, in a folder that takes it.

    Raises UsageError. A device, a pipe or a socket is never replaced.
    """
    if names_descriptor(path):
        raise UsageError(f"{option} {path}: is an open stream; name a file (for --json - is standard output)")
    if _is_loop(path):
        raise UsageError(f"{option} {path}: is a link that leads to itself; name another")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {path}: cannot be written; name a file in a folder that can")
    if path.exists() and not path.is_file():
        raise UsageError(f"{option} {path}: is not a regular file; name another (- is standard output)")
    try:
        can_be_made(path)
    except OSError as error:
        raise UsageError(f"{option} {path}: no file can be made there ({error.strerror})") from error


def _is_loop(path: Path) -> bool:
    try:
        path.resolve()
    except (OSError, RuntimeError):
        return True  # RuntimeError before Python 3.13
    return False


def option_of(name: str) -> str:
    """`max_bandwidth` as a user writes it."""
    return "--" + name.replace("_", "-")


def checked(option: str, text: str, parse: Callable[[str], T]) -> T:
    """`parse(text)`, its ValueError as a UsageError that names option and value."""
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option} {text}: {error}") from error


def one_of(option: str, text: str, names: Sequence[str]) -> str:
    """A name among `names`. Raises UsageError."""
    if text not in names:
        raise UsageError(f"{option} {text}: must be one of {', '.join(names)}")
    return text


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
