"""Everything a run measures, as it is filled in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.delta_figures import DeltaRecord
from pipeline.policy import RoundFigures, Verdict
from pipeline.processes.usage import SideFigures
from pipeline.report.downtime import Downtime


@dataclass(frozen=True)
class Counts:
    """What one side's workers did: sums of their counters (`pipeline.packets.counters`)."""

    packets: int = 0
    raw_packets: int = 0
    normal_pages: int = 0
    zero_pages: int = 0
    wire_bytes: int = 0
    qat_hardware: int = 0
    qat_software: int = 0


@dataclass
class Metrics:
    """A run's figures; what never came stays None or empty."""

    size_bytes: int | None = None
    dirty_log: str | None = None
    setup_ms: float | None = None
    placement: dict[str, Any] = field(default_factory=dict)
    source_nodes: dict[str, int] | None = None
    source_huge_bytes: int | None = None
    destination_huge_bytes: int | None = None
    prealloc_ms: float | None = None
    total_ms: float | None = None
    downtime: Downtime | None = None
    switchovers: int = 0
    """How many were begun: all but the last took too long, and the guest ran again."""
    returned_ms: list[float] = field(default_factory=list)
    """How long the guest stood still in each switchover that did not bring everything over."""
    pages_per_second_peak: float = 0.0
    sent: Counts = field(default_factory=Counts)
    received: Counts = field(default_factory=Counts)
    send: SideFigures = field(default_factory=SideFigures)
    recv: SideFigures = field(default_factory=SideFigures)
    coordinator_cpu_seconds: float = 0.0
    auto: dict[str, Any] | None = None
    deltas: DeltaRecord | None = None
    rounds: list[RoundFigures] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    guest: dict[str, Any] = field(default_factory=dict)
    fallback_reason: str = ""
    simulated: bool = False
    transport: dict[str, Any] = field(default_factory=dict)
    verification: dict[str, bool] = field(default_factory=dict)
    pages_written_since: int = 0
    """Pages that differ from the copy since a visited guest wrote them after it was let run: not compared."""

    @property
    def stood_still_ms(self) -> float | None:
        """All of the guest's standing still, in every switchover; None when there was none."""
        if not self.switchovers:
            return None
        return sum(self.returned_ms) + (self.downtime.total_ms if self.downtime else 0.0)

    @property
    def verified(self) -> bool | None:
        """Whether every check that was asked for passed; None when none was made."""
        return all(self.verification.values()) if self.verification else None
