"""Would other rows have done as well? Every choice of four of the same kinds, calibrated and compared."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from pipeline.errors import UsageError
from pipeline.forecast.host_profile import HostRows
from tools.forecast.published.calibration import Calibrated, calibrated, with_rows
from tools.forecast.published.compared import Errors, errors_of
from tools.forecast.published.rows import row_name, tables
from tools.forecast.published.thread import calibration_of, thread_rows


@dataclass(frozen=True)
class Choices:
    """How many there are, how many tell what has to be known, and the errors of those."""

    tried: int
    possible: int
    best_median: float
    worst_median: float
    most_outside_25_percent: int


def other_choices(hosts: dict[str, Calibrated]) -> Choices:
    """Of each host any row of zstd and any of qatzip; where a limit bound a row of qatzip, it says nothing of
    the device, and is left out."""
    own = calibration_of(hosts).hosts
    names = list(own)
    rows = [
        [HostRows(codec, device, own[name].devices) for codec, device in product(*_named(name))]
        for name in names
    ]
    tried = [dict(zip(names, chosen, strict=True)) for chosen in product(*rows)]
    found = [errors for chosen in tried if (errors := _errors(hosts, chosen)) is not None]
    medians = [errors.median for errors in found]
    outside = [errors.rows - errors.within_25_percent for errors in found]
    return Choices(len(tried), len(found), min(medians), max(medians), max(outside))


def _named(host: str) -> tuple[list[str], list[str]]:
    """Rows of zstd, and of qatzip where no limit of the user's bound them."""
    codecs, devices = [], []
    for name, table in tables().items():
        for row in table.rows if name.partition("-")[0] == host else ():
            if row.method == "zstd":
                codecs.append(row_name(name, row))
            bound = table.bandwidth_bytes and row.throughput_mbps * 1e6 / 8 > 0.95 * table.bandwidth_bytes
            if row.method == "qatzip" and not bound:
                devices.append(row_name(name, row))
    return codecs, devices


def _errors(hosts: dict[str, Calibrated], chosen: dict[str, HostRows]) -> Errors | None:
    try:
        return errors_of(
            thread_rows({name: calibrated(with_rows(host.profile, chosen)) for name, host in hosts.items()})
        )
    except UsageError:
        return None
