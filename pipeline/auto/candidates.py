"""The candidates that method auto chooses from: methods and levels, from no work to the most.

The figures beside each candidate are what auto believes before it has measured: nanoseconds of CPU a
byte to compress and to decompress, and payload bytes a guest byte, for 512 KiB packets of Silesia
on one core of a Xeon of 2023 (`tools.bench.roofline`), and what a channel waits for a QAT device meanwhile
(from the models in QATzip's documents, not measured). Only their relations matter: the first packets
that a run compresses correct them all (`pipeline.auto.chooser`).
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.codecs import METHODS
from pipeline.codecs.method import Method


@dataclass(frozen=True)
class Candidate:
    """A method at a level, with what is believed of it beforehand."""

    method_name: str
    level: int
    compress_ns: float
    decompress_ns: float
    payload_share: float
    waited_ns: float = 0.0

    @property
    def method(self) -> Method:
        return METHODS[self.method_name]

    @property
    def name(self) -> str:
        """`zstd 3`; `none`."""
        return f"{self.method_name} {self.level}" if self.method.levels else self.method_name


NONE = Candidate("none", 0, 0.0, 0.0, 1.0)
QATZIP = Candidate("qatzip", 1, 0.15, 1.5, 0.293, waited_ns=0.3)

CPU_CANDIDATES = (
    Candidate("zstd", -50, 0.73, 0.26, 0.77),
    Candidate("zstd", -20, 1.19, 0.42, 0.55),
    Candidate("lz4", -15, 1.10, 0.29, 0.515),
    Candidate("lz4", -3, 1.49, 0.32, 0.427),
    Candidate("lz4", 1, 1.80, 0.33, 0.388),
    Candidate("zstd", -5, 1.78, 0.51, 0.395),
    Candidate("isal", 1, 1.87, 1.26, 0.290),
    Candidate("zstd", 1, 2.30, 0.74, 0.263),
    Candidate("zstd", 2, 2.84, 0.75, 0.249),
    Candidate("zstd", 3, 3.33, 0.74, 0.242),
    Candidate("zstd", 5, 6.9, 0.74, 0.234),
    Candidate("zstd", 6, 9.6, 0.70, 0.229),
    Candidate("zstd", 7, 10.9, 0.66, 0.2268),
    Candidate("zstd", 9, 14.1, 0.66, 0.2257),
    Candidate("zstd", 12, 20.8, 0.66, 0.2222),
    Candidate("zstd", 15, 62.0, 0.66, 0.2208),
)


def candidates_here(*, with_qat: bool) -> tuple[Candidate, ...]:
    """The candidates that this host has; the first sends pages as they are.

    A level's codec is only opened by the channel that uses it.
    """
    found = [NONE]
    if with_qat:
        found.append(QATZIP)
    return (*found, *(candidate for candidate in CPU_CANDIDATES if not candidate.method.unavailable()))
