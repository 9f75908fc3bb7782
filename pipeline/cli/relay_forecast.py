"""`relay --forecast`: a look at the VM and a forecast before its migration, and the score behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.cli.forecast import METHODS_OF_AUTO, forecast_words
from pipeline.cli.link_probe import over_measured_link
from pipeline.errors import HostError
from pipeline.forecast.bands import Forecast, best, forecast
from pipeline.forecast.beside import Beside
from pipeline.forecast.sample import candidates
from pipeline.forecast.score import SCORED, scored
from pipeline.forecast.situation import Plan
from pipeline.forecast.vm.look_through import look_through
from pipeline.options import AUTO
from pipeline.policy import PolicySettings
from pipeline.progress import Progress
from pipeline.qemu.connect import monitor_at
from pipeline.qemu.monitor import MonitorError
from pipeline.relay.options import RelayOptions

RELAY = Beside(send_ns=2.0, recv_ns=2.0, scan_ns=0.2)
"""What two relays and two QEMUs do beside the codecs, where all share one host's CPUs: reading and writing
sockets in Python, QEMU's own copies (1 GiB without a limit on an AMD EPYC)."""


class RelayForecaster:
    """For one migration. `found` is the forecast, once there was a look."""

    def __init__(self, options: RelayOptions) -> None:
        self._options = options
        self.found: Forecast | None = None
        self._look_seconds = 0.0

    def look(self, progress: Progress) -> None:
        """Watch the VM, and say what its migration will take. Raises FerryError."""
        options = self._options
        assert options.qmp is not None
        where = f"--qmp {options.qmp}"
        progress.say("looking at the VM for some 7 s")
        try:
            with monitor_at(options.qmp) as monitor:
                seen = look_through(monitor, where, monitor.peer_pid)
        except MonitorError as error:
            raise HostError(f"{where}: {error}") from error
        for note in seen.notes:
            progress.warn(note)
        limit_ms = float(seen.facts["parameters"].get("downtime-limit", PolicySettings.downtime_limit_ms))
        plan = self._plan(PolicySettings(downtime_limit_ms=limit_ms), progress)
        pool = options.pool
        methods = METHODS_OF_AUTO if pool.method == AUTO else ((pool.method, pool.level),)
        threads = max(1, min(pool.channels, int(seen.host.cpus)))
        tried = candidates(methods, seen.whole, seen.written, threads)
        found = best([forecast(seen.guest, one, seen.host, plan) for one in tried])
        self.found = replace(found, method=pool.method, level=pool.level)
        self._look_seconds = seen.facts["look_seconds"]
        progress.say(forecast_words(self.found))

    def _plan(self, policy: PolicySettings, progress: Progress) -> Plan:
        options = self._options
        channels = options.pool.channels
        plan = Plan(channels, channels, options.max_bandwidth, policy, beside=RELAY)
        if options.max_bandwidth:
            return plan
        assert options.to is not None
        return over_measured_link(plan, options.to, options.tls, options.secret, progress)

    def add_to(self, document: dict[str, Any]) -> None:
        """The forecast and its score, into the relay's result."""
        if self.found is None:
            return
        document["forecast"] = {**self.found.record(), "look_seconds": self._look_seconds}
        if document["status"] in SCORED:
            document["score"] = scored(document)
