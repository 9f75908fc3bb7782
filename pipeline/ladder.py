"""The rungs that method auto chooses from: methods and levels, from no work to the most.

The figures beside each rung are what auto believes before it has measured: nanoseconds of CPU a
byte to compress and to decompress, and payload bytes a guest byte, for 512 KiB packets of Silesia
on one core of a Xeon of 2023 (`tools.roofline`), and what a channel waits for a QAT device meanwhile
(from the models in QATzip's documents, not measured). Only their relations matter: the first packets
that a run compresses correct them all (`pipeline.chooser`).
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.codecs import METHODS
from pipeline.codecs.method import Method


@dataclass(frozen=True)
class Rung:
    """A method at a level, with what is believed of it beforehand."""

    method_name: str
    level: int
    compress_ns: float
    decompress_ns: float
    payload_share: float
    waited_ns: float = 0.0

    @property
    def method(self) -> Method:
        """The method."""
        return METHODS[self.method_name]

    @property
    def name(self) -> str:
        """`zstd 3`; `none`."""
        return f"{self.method_name} {self.level}" if self.method.levels else self.method_name


NONE = Rung("none", 0, 0.0, 0.0, 1.0)
QATZIP = Rung("qatzip", 1, 0.15, 1.5, 0.293, waited_ns=0.3)

CPU_RUNGS = (
    Rung("zstd", -50, 0.73, 0.26, 0.77),
    Rung("zstd", -20, 1.19, 0.42, 0.55),
    Rung("lz4", -15, 1.10, 0.29, 0.515),
    Rung("lz4", -3, 1.49, 0.32, 0.427),
    Rung("lz4", 1, 1.80, 0.33, 0.388),
    Rung("zstd", -5, 1.78, 0.51, 0.395),
    Rung("isal", 1, 1.87, 1.26, 0.290),
    Rung("zstd", 1, 2.30, 0.74, 0.263),
    Rung("zstd", 2, 2.84, 0.75, 0.249),
    Rung("zstd", 3, 3.33, 0.74, 0.242),
    Rung("zstd", 5, 6.9, 0.74, 0.234),
    Rung("zstd", 6, 9.6, 0.70, 0.229),
    Rung("zstd", 7, 10.9, 0.66, 0.2268),
    Rung("zstd", 9, 14.1, 0.66, 0.2257),
    Rung("zstd", 12, 20.8, 0.66, 0.2222),
    Rung("zstd", 15, 62.0, 0.66, 0.2208),
)


def ladder(*, with_qat: bool) -> tuple[Rung, ...]:
    """The rungs that this host has; the first sends pages as they are.

    A level's codec is only opened by the channel that uses it.
    """
    rungs = [NONE]
    if with_qat:
        rungs.append(QATZIP)
    return (*rungs, *(rung for rung in CPU_RUNGS if not rung.method.unavailable()))
