"""`--forecast`: a look at the guest and a forecast before the run, and the score behind it."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

from pipeline.cli.link_probe import over_measured_link
from pipeline.errors import UsageError
from pipeline.forecast.bands import Forecast, best, forecast
from pipeline.forecast.beside import beside_here
from pipeline.forecast.look import Watched, look
from pipeline.forecast.sample import candidates
from pipeline.forecast.score import NAMES, SCORED, scored
from pipeline.forecast.situation import Candidate, Host, Plan
from pipeline.options import AUTO, Options
from pipeline.processes.cgroup import usable_cpus
from pipeline.progress import Progress
from pipeline.report.columns import Result
from pipeline.report.markdown import table
from pipeline.source.delta_budget import with_delta_budget
from pipeline.source.guest_client import GuestClient

METHODS_OF_AUTO = (
    *(("none", None), ("lz4", -3), ("lz4", 1), ("isal", 1)),
    *(("zstd", level) for level in (-5, 1, 2, 3, 5, 7)),
)
"""What auto is forecast as: the best of these."""

AUTO_SEND_NS, AUTO_RECV_NS, AUTO_WIRE = 0.06, 0.03, 1.03
"""More than the fixed method that it comes to takes: CPU a byte, since packets go through the queue and
others are tried; and times the bytes on the wire, but for plain pages (256 MiB over 25 and 125 MiB/s)."""

AUTO_NOISE = 0.18
"""It does not choose the same each time: of 20 runs of 256 MiB half were more than 7 % off."""


def add_forecast_argument(parser: argparse.ArgumentParser) -> None:
    """To the options of what is printed."""
    parser.add_argument(
        "--forecast",
        action="store_true",
        default=None,
        help="first look at the guest for 5 s, compress what was seen, and say what it will take; score that "
        "in the end",
    )


def check_forecast(options: Options) -> None:
    """Raises UsageError for what is not modelled."""
    if options.method == "qatzip":
        raise UsageError(
            "--forecast: a QAT device is not modelled from a look at this host; leave it out, choose a CPU "
            "method, or see tools.forecast --host-profile"
        )


class Forecaster:
    """For one run. `found` is the forecast, once there was a look."""

    def __init__(self, options: Options, progress: Progress) -> None:
        """Measures the link where another host is called and no limit is set. Raises FerryError."""
        self._options = options
        self._plan = Plan(options.channels, options.receivers, options.max_bandwidth, options.policy)
        if options.to is not None and not options.max_bandwidth:
            self._plan = over_measured_link(self._plan, options.to, options.tls, options.secret, progress)
        self.found: Forecast | None = None
        self.seen: Watched | None = None

    def look(self, guest: GuestClient) -> str:
        """Watch an open guest, and say what its migration will take."""
        self.seen = look(guest.source, guest.log, guest.pid, guest.rest)
        looked_at = time.monotonic()
        options = self._options
        cpus = usable_cpus()
        threads = max(1, min(options.channels, int(cpus)))
        methods = METHODS_OF_AUTO if options.method == AUTO else ((options.method, options.level),)
        host = Host(cpus, cpus, one_host=options.to is None)
        if options.method == AUTO:
            host = replace(host, noise=AUTO_NOISE)
        tried = candidates(methods, self.seen.whole, self.seen.written, threads, self.seen.gauges)
        if options.method == AUTO:
            tried = [_as_auto(candidate) for candidate in tried]
        deltas = with_delta_budget(options, guest.source.size_bytes).delta_bytes or 0
        beside = beside_here(self.seen.whole, threads)
        unsettled = time.monotonic() - looked_at if options.attach is None else 0.0
        plan = replace(self._plan, delta_bytes=deltas, beside=beside, unsettled_seconds=unsettled)
        found = best([forecast(self.seen.guest, candidate, host, plan) for candidate in tried])
        self.found = replace(found, method=options.method, level=options.level)
        return forecast_words(self.found)

    def add_to(self, result: Result) -> None:
        """The forecast and its score, into a result document."""
        if self.found is None or self.seen is None:
            return
        result["forecast"] = {**self.found.record(), "look_seconds": self.seen.took_seconds}
        if result["status"] in SCORED:
            result["score"] = scored(result)


def _as_auto(candidate: Candidate) -> Candidate:
    wire = 1.0 if candidate.method == "none" else AUTO_WIRE
    return candidate.dearer(AUTO_SEND_NS, AUTO_RECV_NS, wire)


def forecast_words(found: Forecast) -> str:
    """A forecast in a line."""
    total, downtime = found.bands["total_ms"], found.bands["downtime_ms"]
    return (
        f"forecast: {total.low / 1e3:.2f} to {total.high / 1e3:.2f} s (80 %), downtime "
        f"{downtime.low:.0f} to {downtime.high:.0f} ms, converges in {found.chance_to_converge:.0%} of "
        "the draws"
    )


def render_score(result: Result) -> str:
    """Predicted and real, side by side."""
    predicted, score = result["forecast"], result["score"]
    rows = [["", "forecast", "80 % band", "came true", "error", "in the band"]]
    for name, title in NAMES.items():
        band: dict[str, Any] = predicted[name]
        found = score.get(name)
        rows.append(
            [
                title,
                _show(name, band["expected"]),
                f"{_show(name, band['low'])} to {_show(name, band['high'])}",
                "-" if found is None else _show(name, found["came_true"]),
                "-" if found is None or found["error"] is None else f"{found['error']:+.0%}",
                "-" if found is None else ("yes" if found["in_band"] else "no"),
            ]
        )
    chance = f"{predicted['chance_to_converge']:.0%} of the draws converged"
    return f"{table(rows)}\n\n{chance}; the run " + ("did" if score["converged"] else "did not")


def _show(name: str, value: float) -> str:
    if name == "wire_bytes":
        return f"{value / 1e6:.1f} M"
    return f"{value:.2f}" if name.endswith("seconds") else f"{value:.0f}"
