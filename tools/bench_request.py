"""What `tools.bench` was asked to measure, and what its suites share: progress and tables."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from guestmem.workload import parse_rate
from pipeline.codecs import METHODS
from pipeline.errors import UsageError
from pipeline.guest_options import RamOptions, checked
from tools.images import KINDS

BANDWIDTHS = ("25M", "50M", "100M", "200M", "400M", "800M", "0")


@dataclass(frozen=True)
class BenchRequest:
    """A validated request; None stands for the suite's own choice."""

    ram: RamOptions
    methods: tuple[str, ...] | None
    channels: int
    repeat: int
    bandwidths: tuple[str, ...] | None
    images: tuple[str, ...] | None
    qemu: bool

    def check(self) -> None:
        """Raises UsageError for a name or a rate that is none."""
        for name in self.methods or ():
            if name not in METHODS:
                raise UsageError(f"--methods {name}: must be of {', '.join(METHODS)}")
        for kind in self.images or ():
            if kind not in KINDS:
                raise UsageError(f"--images {kind}: must be of {', '.join(KINDS)}")
        for rate in self.bandwidths or ():
            checked("--bandwidths", rate, parse_rate)

    def ram_arguments(self) -> list[str]:
        """The same RAM, as options of `pipeline.run`."""
        if self.ram.image is not None:
            return ["--image", self.ram.image]
        fill = [] if self.ram.fill is None else ["--fill", self.ram.fill]
        return ["--size", str(self.ram.size_bytes), "--filled", str(self.ram.filled), *fill]


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def table(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is its head, the first column stands left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| "
        + " | ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in [rows[0], rule, *rows[1:]]
    )


def host_line(document: dict[str, Any]) -> str:
    """One sentence on where this was measured."""
    host = document["host"]
    devices = len(host["qat_devices"])
    return (
        f"Host: {host['cpus']} CPUs, {host['cpu_model']}, {host['memory_bytes'] >> 30} GiB, "
        f"Linux {host['kernel']}, Python {host['python']}, {devices or 'no'} QAT devices. "
        f"Command: `{' '.join(document['command'])}`"
    )
