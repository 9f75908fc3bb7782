"""What a look at a guest gives, wherever it is found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.forecast.sample import NO_GAUGES, NO_PAGES, Gauges, Words
from pipeline.forecast.situation import Candidate, Guest, Host


@dataclass(frozen=True)
class Seen:
    """A guest's figures, and normal pages of all of it and of what it writes. `facts` go into the result
    beside the guest's figures, `notes` are said. Where no page could be read `content_known` is False.
    `measured` are methods whose figures are known already; then no page is compressed here."""

    guest: Guest
    host: Host
    whole: Words = field(default_factory=lambda: NO_PAGES)
    written: Words = field(default_factory=lambda: NO_PAGES)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    content_known: bool = True
    measured: tuple[Candidate, ...] = ()
    gauges: Gauges = NO_GAUGES
