"""What deltas did, of a round and of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class DeltaFigures:
    """Of one round, or of all. `based_pages` had a kept version, whichever way they went, and took
    `based_bytes`; `pages` of them went as deltas, in `bytes`. `saved_bytes` is what those would have taken
    more, had they gone as whole pages of this run do on average; `missed_pages` came back and had no kept
    version."""

    pages: int = 0
    bytes: int = 0
    based_pages: int = 0
    based_bytes: int = 0
    saved_bytes: int = 0
    missed_pages: int = 0


@dataclass
class DeltaRecord:
    """Of a run. `look_share_changed`: of the bytes of pages that were seen to come back before round 1, how
    many had changed. `stopped` says why nothing is kept any more. `round_1_cpu_seconds` is what keeping cost
    before it could gain anything."""

    budget_bytes: int
    memory_bytes: int = 0
    look_share_changed: float | None = None
    stopped: str = ""
    cpu_seconds: float = 0.0
    round_1_cpu_seconds: float = 0.0
    totals: DeltaFigures = field(default_factory=DeltaFigures)

    def add(self, found: DeltaFigures) -> None:
        """A round more."""
        for name, value in vars(found).items():
            setattr(self.totals, name, getattr(self.totals, name) + value)

    def record(self) -> dict[str, Any]:
        """For a result document."""
        own = {name: value for name, value in vars(self).items() if name != "totals"}
        return {**own, "stopped": self.stopped or None, **asdict(self.totals)}
