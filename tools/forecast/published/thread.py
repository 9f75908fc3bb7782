"""The 27 rows of the thread of QEMU's QATzip series, each beside the model's."""

from __future__ import annotations

from pipeline.forecast.host_profile import Calibration
from tools.compare.published import PublishedRow
from tools.forecast.published.calibration import RAM_BYTES, Calibrated, rows_used
from tools.forecast.published.compared import Compared
from tools.forecast.published.model import Content, Modelled, beside_of, cost_on, cpus_of, modelled, slower
from tools.forecast.published.rows import row_name, tables


def thread_rows(hosts: dict[str, Calibrated]) -> list[Compared]:
    """All 27 rows of the thread. `hosts` by the first word of a table's name."""
    used = set(rows_used(calibration_of(hosts)))
    found = []
    for name, published in tables().items():
        host = hosts[name.partition("-")[0]]
        link = slower(published.bandwidth_bytes, host.profile.link_bytes_per_second)
        for row in published.rows:
            use = "calibrates" if row_name(name, row) in used else ""
            found.append(
                Compared(
                    *(name, row.channels, row.method, row.total_ms, row.send_cpu, row.recv_cpu),
                    *(_modelled(host, row, link), use),
                )
            )
    return found


def calibration_of(hosts: dict[str, Calibrated]) -> Calibration:
    """Both hosts' rows."""
    found = next(iter(hosts.values())).profile.calibration
    assert found is not None
    return found


def _modelled(host: Calibrated, row: PublishedRow, link: float) -> Modelled | None:
    share = host.wire_shares[row.method]
    cost = cost_on(host.profile, row.method, row.channels, share, prealloc=False)
    if cost is None:
        return None
    content = Content(RAM_BYTES, host.normal_bytes)
    return modelled(content, cost, row.channels, link, beside_of(row.method), cpus_of(host.profile))
