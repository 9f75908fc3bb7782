"""What `tools.bench` was asked to measure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from guestmem.page import PAGE_BYTES
from guestmem.ram import MIN_RAM_BYTES
from guestmem.workload import parse_rate
from pipeline.cli.values import checked
from pipeline.codecs import METHODS
from pipeline.errors import UsageError
from pipeline.options import AUTO, RamOptions
from tools.measuring.images import KINDS
from tools.measuring.progress import say

OUTPUT = "docs"
BANDWIDTHS = ("25M", "50M", "100M", "200M", "400M", "800M", "0")


@dataclass(frozen=True)
class BenchRequest:
    """A validated request; None means the suite's own choice."""

    ram: RamOptions
    methods: tuple[str, ...] | None
    channels: int
    repeat: int
    bandwidths: tuple[str, ...] | None
    images: tuple[str, ...] | None
    qemu: bool
    prealloc: bool
    sections: tuple[str, ...] | None = None
    output: Path = Path(OUTPUT)

    def check(self) -> None:
        """Raises UsageError for an unknown name or an invalid rate."""
        for name in self.methods or ():
            if name not in (AUTO, *METHODS):
                raise UsageError(f"--methods {name}: must be of {', '.join([AUTO, *METHODS])}")
        for kind in self.images or ():
            if kind not in KINDS:
                raise UsageError(f"--images {kind}: must be of {', '.join(KINDS)}")
        for rate in self.bandwidths or ():
            checked("--bandwidths", rate, parse_rate)

    def share(self, share: float) -> BenchRequest:
        """The same for a share of the guest, in whole pages."""
        size = int(self.ram.size_bytes * share) // PAGE_BYTES * PAGE_BYTES
        return replace(self, ram=replace(self.ram, size_bytes=max(MIN_RAM_BYTES, size)))

    def ram_arguments(self) -> list[str]:
        """The guest RAM as options of `pipeline.run`."""
        if self.ram.image is not None:
            return ["--image", self.ram.image]
        fill = [] if self.ram.fill is None else ["--fill", self.ram.fill]
        return ["--size", str(self.ram.size_bytes), "--filled", str(self.ram.filled), *fill]


def here(method: str) -> bool:
    """Whether this host can run a method; prints why when it cannot."""
    why = METHODS[method].unavailable()
    if why:
        say(f"without {method}: {why}")
    return not why
