"""What a user sees while a run goes on: a live line on a terminal, plain lines elsewhere.

All of it goes to standard error; standard output is for the result.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

REFRESH_SECONDS = 0.1


@dataclass(frozen=True)
class Moment:
    """Where a migration stands."""

    round: int
    percent: float
    guest_megabytes_per_second: float
    ratio: float
    dirty_pages: int

    def line(self) -> str:
        """One line for a reader."""
        return (
            f"round {self.round}  {self.percent:5.1f} %  "
            f"{self.guest_megabytes_per_second:7.0f} guest MB/s  ratio {self.ratio:.2f}  "
            f"{self.dirty_pages} pages dirty"
        )


class Progress(Protocol):
    """Shows a run."""

    def say(self, text: str) -> None:
        """A step, in one line."""

    def warn(self, text: str) -> None:
        """Something the user should know, in one line."""

    def show(self, line: str) -> None:
        """Where things stand; only the latest matters. Called up to ten times a second."""

    def close(self) -> None:
        """Leave the screen as a shell expects it."""


class Silent:
    """--quiet."""

    def say(self, text: str) -> None:
        """Nothing."""

    def warn(self, text: str) -> None:
        """Nothing."""

    def show(self, line: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class LogLines:
    """Plain lines, with the time since the start; no line for moments within a round."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """A line."""
        print(f"[{time.monotonic() - self._began:8.3f}] {text}", file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """A line that says it is a warning."""
        self.say(f"warning: {text}")

    def show(self, line: str) -> None:
        """Nothing: a log keeps steps, not moments."""

    def close(self) -> None:
        """Nothing is held."""


class LiveLine:
    """One line that changes, with warnings above it. Draws in the caller, without a thread."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def say(self, text: str) -> None:
        """The line's text until the next moment."""
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def warn(self, text: str) -> None:
        """A line that stays."""
        self._console.print(Text(f"warning: {text}"))

    def show(self, line: str) -> None:
        """The same as a step."""
        self.say(line)

    def close(self) -> None:
        """Take the line away."""
        self._live.stop()


def open_log(quiet: bool) -> Progress:
    """For a process that goes on and on: lines, on a terminal too."""
    return Silent() if quiet else LogLines()


def open_progress(quiet: bool) -> Progress:
    """The way that fits where standard error goes."""
    if quiet:
        return Silent()
    return LiveLine() if sys.stderr.isatty() else LogLines()
