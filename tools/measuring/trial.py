"""One run of ours as a user starts it, and what it says."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import Any

from pipeline.errors import RunFailed
from pipeline.processes.command import run_command
from qat.scripts import PROJECT

TIMEOUT_SECONDS = 1200.0


@dataclass(frozen=True)
class Trial:
    """The result document of a run, and how long the command took from start to end."""

    result: dict[str, Any]
    wall_seconds: float

    @property
    def total_ms(self) -> float:
        """Milliseconds from the first packet claimed to the last page applied."""
        return float(self.result["time"]["total_ms"])

    @property
    def guest_megabytes_per_second(self) -> float:
        """Guest megabytes (10^6 bytes of normal pages) per second."""
        return float(self.result["traffic"]["guest_megabytes_per_second"])

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of both sides."""
        return float(self.result["send"]["cpu_seconds"] + self.result["recv"]["cpu_seconds"])

    @property
    def compression_ratio(self) -> float:
        """Bytes of normal pages over wire bytes."""
        return float(self.result["traffic"]["compression_ratio"] or 0.0)


NOT_CONVERGED = 3

START = """
import runpy, sys
sys.path[0] = sys.argv.pop(1)
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
"""Starts a module of this project: `python -m` prefers a folder of that name in the working directory."""


def command_of(module: str, *arguments: str) -> list[str]:
    """What starts a command of ours, `pipeline.run` or another, in a process of its own."""
    return [sys.executable, "-c", START, str(PROJECT), module, *arguments]


def run_ours(
    arguments: list[str],
    *,
    may_not_converge: bool = False,
    module: str = "pipeline.run",
    prefix: tuple[str, ...] = (),
) -> Trial:
    """Run a command of ours, after a `prefix` such as `ip netns exec NAME`. Raises RunFailed."""
    began = time.monotonic()
    ended = run_command([*prefix, *command_of(module, "--quiet", "--json", "-", *arguments)], TIMEOUT_SECONDS)
    wall = time.monotonic() - began
    if ended.returncode != 0 and not (may_not_converge and ended.returncode == NOT_CONVERGED):
        said = ended.stderr.strip().splitlines()
        raise RunFailed(f"{module} {' '.join(arguments)}: {said[-1] if said else f'exit {ended.returncode}'}")
    return Trial(json.loads(ended.stdout), wall)
