"""The columns of every table of runs: those of QEMU's `docs/devel/migration/qatzip-compression.rst`, so that
a run can be held against a published one.

QEMU prints the pages per second of its last 100 ms window; here the mean stands in the table, and the peak
beside it in the document. A new column is one entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Result = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A figure of a result document: where it stands there, how many digits are shown, and whether the less
    (-1) or the more (1) of it is the better; 0 is neither."""

    title: str
    group: str
    key: str
    digits: int = 0
    better: int = 0

    def value(self, result: Result) -> float | None:
        found = result[self.group][self.key]
        return None if found is None else float(found)

    def show(self, result: Result) -> str:
        value = self.value(result)
        return "-" if value is None else f"{value:.{self.digits}f}"


CHANNELS = Column("channels", "options", "channels")
MEASURED = (
    Column("total ms", "time", "total_ms", better=-1),
    Column("downtime ms", "time", "downtime_ms", 1, better=-1),
    Column("throughput mbps", "traffic", "throughput_mbps", better=1),
    Column("pages/s", "traffic", "pages_per_second_mean", better=1),
    Column("send CPU %", "send", "cpu_percent", better=-1),
    Column("recv CPU %", "recv", "cpu_percent", better=-1),
    Column("ratio", "traffic", "compression_ratio", 2, better=1),
)
COLUMNS = (CHANNELS, *MEASURED)


def method_of(result: Result) -> str:
    """Method and level, with what a reader must know: `qatzip 1 (software)`."""
    options = result["options"]
    name = str(options["method"])
    if options["level"] is not None and name != "none":
        name += f" {options['level']}"
    return name + who_worked(result)


def who_worked(result: Result) -> str:
    """Behind a method's name: whether its device was emulated, or did nothing; else nothing."""
    qat = result["qat"]
    if result["options"]["method"] == "qatzip" and qat["software_requests"] and not qat["hardware_requests"]:
        return " (software)"
    return " (simulated)" if qat["simulated"] else ""
