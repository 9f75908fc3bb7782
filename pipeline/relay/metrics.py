"""What Prometheus may ask a relay: totals of all its migrations, by the package `prometheus-client`.

Names after prometheus.io/docs/practices/naming: base units, `_total` for what only grows.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import HostError
from pipeline.net.address import Address

NO_PACKAGE = "--metrics: the package prometheus-client is missing: pip install 'ramferry[metrics]'"
PREFIX = "ramferry_relay"


@dataclass(frozen=True)
class Totals:
    """Of all migrations so far, those that go on included; `side` is this relay's."""

    side: str
    active: int
    completed: int
    failed: int
    undecided: int
    guest_bytes: int
    wire_bytes: int
    retransmitted_bytes: int
    reconnections: int
    stalls: int
    stalled_seconds: float
    under_way_bytes: int
    hardware_requests: int
    software_requests: int


GAUGES = {
    "active": ("migrations_active", "Migrations that go on."),
    "undecided": ("migrations_undecided", "Migrations of which nobody knows here how they ended."),
    "under_way_bytes": ("under_way_bytes", "Bytes of guests read and not delivered yet."),
}
COUNTERS = {
    "guest_bytes": ("guest_bytes", "Bytes of QEMU's streams that were sent."),
    "wire_bytes": ("wire_bytes", "Bytes that they were on the wire, compressed."),
    "retransmitted_bytes": ("retransmitted_bytes", "Bytes that were sent again after a break."),
    "reconnections": ("reconnections", "Connections between the relays that broke and were made again."),
    "stalls": ("stalls", "Times at which no connection was left."),
    "stalled_seconds": ("stalled_seconds", "Seconds without any connection."),
    "hardware_requests": ("qat_hardware_requests", "Requests that a QAT device did."),
    "software_requests": ("qat_software_requests", "QAT requests that software did."),
}


class Metrics:
    """An HTTP server in a thread of its own. Raises HostError where it cannot be."""

    def __init__(self, address: Address, totals: Callable[[], Totals]) -> None:
        """`totals` is called for each scrape, from the server's thread."""
        try:
            core: Any = importlib.import_module("prometheus_client.core")
            client: Any = importlib.import_module("prometheus_client")
        except ImportError as error:
            raise HostError(NO_PACKAGE) from error
        self._core, self._totals = core, totals
        registry = client.CollectorRegistry()
        registry.register(self)
        try:
            self._server, self._thread = client.start_http_server(address.port, address.host, registry)
        except OSError as error:
            raise HostError(f"--metrics {address}: {error.strerror or error}") from error
        self.port = int(self._server.server_port)

    def collect(self) -> Iterator[Any]:
        """For the package: every family, as it is now."""
        core, now = self._core, self._totals()
        ended = core.CounterMetricFamily(
            f"{PREFIX}_migrations", "Migrations that have ended.", labels=["side", "outcome"]
        )
        ended.add_metric([now.side, "completed"], now.completed)
        ended.add_metric([now.side, "failed"], now.failed)
        yield ended
        ratio = now.guest_bytes / now.wire_bytes if now.wire_bytes else 1.0
        what = "Guest bytes over wire bytes."
        yield self._one(core.GaugeMetricFamily, now.side, "compression_ratio", what, ratio)
        for field, (name, what) in GAUGES.items():
            yield self._one(core.GaugeMetricFamily, now.side, name, what, getattr(now, field))
        for field, (name, what) in COUNTERS.items():
            yield self._one(core.CounterMetricFamily, now.side, name, what, getattr(now, field))

    @staticmethod
    def _one(kind: Any, side: str, name: str, what: str, value: float) -> Any:
        family = kind(f"{PREFIX}_{name}", what, labels=["side"])
        family.add_metric([side], value)
        return family

    def close(self) -> None:
        """No more answers."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)
