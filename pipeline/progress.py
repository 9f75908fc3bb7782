"""What a user sees while a run goes on: one bar on a terminal, plain lines elsewhere.

All of it goes to standard error; standard output is for the result. The same lines go to the log
`ramferry`, which is quiet unless --debug asks for it. What is only for eyes never holds a migration up and
never fails it: a line that cannot be written at once is left out.
"""

from __future__ import annotations

import io
import logging
import os
import select
import sys
import time
from enum import Enum
from typing import IO, Protocol, cast

REFRESH_SECONDS = 0.1
ENOUGH_SHARE = 0.05
"""A stage's own speed is believed when so much of it is done; until then its plan is."""

log = logging.getLogger("ramferry")


class Stage(Enum):
    """The parts of a run, in their order."""

    FILLING = "filling guest RAM"
    PREALLOC = "giving the destination its pages"
    ROUNDS = "migrating"
    VERIFYING = "checking the copy"


class Course:
    """How far a run has come, and how long it will still take: from a plan, corrected by what is seen.

    Times in seconds; `now` is of the monotonic clock.
    """

    def __init__(self) -> None:
        self._planned: dict[Stage, float] = {}
        self._stage: Stage | None = None
        self._began = 0.0
        self._stage_share = 0.0
        self._shown = 0.0

    def plan(self, stage: Stage, seconds: float) -> None:
        """A stage will take so long, or is now known to take so long in all."""
        self._planned[stage] = seconds

    def reach(self, stage: Stage, share: float, now: float) -> None:
        """`share` (0 to 1) of a stage is done."""
        if stage is not self._stage:
            self._stage, self._began = stage, now
        self._stage_share = min(1.0, max(0.0, share))

    def left_seconds(self, now: float) -> float:
        """What is left of this stage at its own speed, and the later ones as planned."""
        later = sum(seconds for stage, seconds in self._planned.items() if self._is_later(stage))
        return self._stage_left(now) + later

    def share(self, now: float) -> float:
        """Of the whole run, 0 to 1; it never goes back."""
        if self._stage is None:
            return 0.0
        earlier = sum(s for stage, s in self._planned.items() if self._is_earlier(stage))
        done = earlier + (now - self._began)
        whole = done + self.left_seconds(now)
        self._shown = max(self._shown, done / whole if whole else 0.0)
        return self._shown

    def _stage_left(self, now: float) -> float:
        if self._stage is None:
            return 0.0
        passed = now - self._began
        if self._stage_share >= ENOUGH_SHARE:
            return passed / self._stage_share * (1 - self._stage_share)
        return max(0.0, self._planned.get(self._stage, 0.0) - passed)

    def _is_later(self, stage: Stage) -> bool:
        return self._stage is None or _ORDER[stage] > _ORDER[self._stage]

    def _is_earlier(self, stage: Stage) -> bool:
        return self._stage is not None and _ORDER[stage] < _ORDER[self._stage]


_ORDER = {stage: place for place, stage in enumerate(Stage)}


class Progress(Protocol):
    """Shows a run."""

    def say(self, text: str) -> None:
        """A step, in one line."""

    def warn(self, text: str) -> None:
        """Something the user should know, in one line."""

    def plan(self, stage: Stage, seconds: float) -> None:
        """How long a stage will take, as far as that is known beforehand."""

    def reach(self, stage: Stage, share: float, detail: str = "") -> None:
        """`share` of a stage is done; only the latest matters. Called up to ten times a second."""

    def close(self) -> None:
        """Leave the screen as a shell expects it."""


class Silent:
    """--quiet."""

    def say(self, text: str) -> None:
        log.info(text)

    def warn(self, text: str) -> None:
        log.warning(text)

    def plan(self, stage: Stage, seconds: float) -> None:
        pass

    def reach(self, stage: Stage, share: float, detail: str = "") -> None:
        pass

    def close(self) -> None:
        pass


class Eyes(io.TextIOBase):
    """Standard error, for what a reader may miss: never waits, never raises.

    A pipe that nobody reads, a terminal that was stopped (Ctrl-S) and a full disk take nothing: what does not
    go at once is dropped.
    """

    def __init__(self) -> None:
        self._room = select.poll()
        self._text = ""
        try:
            self._room.register(sys.stderr.fileno(), select.POLLOUT)
        except (OSError, ValueError):
            pass  # closed, or no descriptor: nothing will ever be writable

    def write(self, text: str) -> int:
        self._text += text
        if "\n" in text:
            self.flush()
        return len(text)

    def flush(self) -> None:
        data, self._text = self._text.encode(errors="replace"), ""
        try:
            while data and any(event & select.POLLOUT for _, event in self._room.poll(0)):
                # With POLLOUT a pipe has room for so many bytes (pipe(7)).
                data = data[os.write(sys.stderr.fileno(), data[: select.PIPE_BUF]) :]
        except (OSError, ValueError):
            pass

    def isatty(self) -> bool:
        return sys.stderr.isatty()


class LogLines(Silent):
    """Plain lines, with the time since the start; a log keeps steps, not moments."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._eyes = Eyes()

    def say(self, text: str) -> None:
        self._eyes.write(f"[{time.monotonic() - self._began:8.3f}] {text}\n")
        super().say(text)

    def warn(self, text: str) -> None:
        self._eyes.write(f"[{time.monotonic() - self._began:8.3f}] warning: {text}\n")
        super().warn(text)


class Bar:
    """One bar over the whole run, with warnings above it. Draws in the caller, without a thread."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._title = f"{title}: " if title else ""
        # mypy's stubs ask for IO[str]; write, flush and isatty are all that rich uses.
        self._console = Console(file=cast(IO[str], Eyes()), force_terminal=True, highlight=False)
        self._course = Course()
        self._bar = RichProgress(
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f} %"),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1.0, left="")
        self._bar.start()

    def say(self, text: str) -> None:
        self._draw(text)
        log.info(text)

    def warn(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(f"warning: {text}"))
        log.warning(text)

    def plan(self, stage: Stage, seconds: float) -> None:
        self._course.plan(stage, seconds)

    def reach(self, stage: Stage, share: float, detail: str = "") -> None:
        self._course.reach(stage, share, time.monotonic())
        self._draw(detail or stage.value)

    def _draw(self, text: str) -> None:
        now = time.monotonic()
        left = self._course.left_seconds(now)
        room = max(10, self._console.width - 48)
        self._bar.update(
            self._task,
            completed=self._course.share(now),
            description=f"{self._title}{text}"[:room],
            left=f"{left:.0f} s left" if left < 90 else f"{left / 60:.0f} min left",
            refresh=True,
        )

    def close(self) -> None:
        self._bar.stop()


def open_log(quiet: bool) -> Progress:
    """For a process that goes on and on: lines, on a terminal too."""
    return Silent() if quiet else LogLines()


def open_progress(quiet: bool, title: str = "") -> Progress:
    """The way that fits where standard error goes. `title` stands before each line of a bar."""
    if quiet:
        return Silent()
    return Bar(title) if sys.stderr.isatty() else LogLines()
