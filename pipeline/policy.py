"""When to go on, when to stop and copy, when to give up: pure functions over measured rounds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from guestmem.segment import PAGE_BYTES

RATE_WINDOW_BYTES = 64 << 20
RATE_WINDOW_MS = 200.0
"""The rate is taken over the latest rounds that together moved this much, or took this long:
enough that one delayed wake-up does not decide, recent enough to follow a change."""


@dataclass(frozen=True)
class RoundFigures:
    """What one round moved, and what the guest did meanwhile.

    `dirty_pages_per_second` counts pages found dirty at the end of the round; a page written
    twice counts once.
    """

    round: int
    pages: int
    normal_pages: int
    zero_pages: int
    wire_bytes: int
    duration_ms: float
    dirty_pages_per_second: float


class Decision(Enum):
    """What to do after a round."""

    CONTINUE = "continue"
    SWITCH_OVER = "switch over"
    GIVE_UP = "give up"


@dataclass(frozen=True)
class Verdict:
    """A decision with the downtime it expects of a switchover now, and its reason."""

    decision: Decision
    expected_downtime_ms: float
    reason: str


@dataclass(frozen=True)
class Limits:
    """What the user allows. `max_rounds` 0 is no limit."""

    downtime_limit_ms: float
    max_rounds: int


def guest_bytes_per_second(rounds: list[RoundFigures]) -> float:
    """The rate at which guest bytes were moved lately: uncompressed, whatever the wire carried.

    QEMU compares uncompressed pages with compressed bandwidth instead, and so switches over too
    late by the compression ratio (migration.c, threshold_size). Pages that were not zero are
    counted, since those are what a busy guest leaves; where there were none, all pages.
    """
    milliseconds = 0.0
    normal = pages = 0
    for figures in reversed(rounds):
        milliseconds += figures.duration_ms
        normal += figures.normal_pages
        pages += figures.pages
        if normal * PAGE_BYTES >= RATE_WINDOW_BYTES or milliseconds >= RATE_WINDOW_MS:
            break
    if not milliseconds:
        return 0.0
    return (normal or pages) * PAGE_BYTES / milliseconds * 1e3


def decide(rounds: list[RoundFigures], pending_pages: int, limits: Limits) -> Verdict:
    """What to do after the last of `rounds`, when `pending_pages` are dirty."""
    rate = guest_bytes_per_second(rounds)
    pending_bytes = pending_pages * PAGE_BYTES
    expected = pending_bytes / rate * 1e3 if rate else (0.0 if not pending_pages else float("inf"))
    moved = f"{pending_pages} pages dirty, moved at {rate / 1e6:.0f} MB/s"
    if expected <= limits.downtime_limit_ms:
        return Verdict(
            Decision.SWITCH_OVER,
            expected,
            f"{moved}: {expected:.1f} ms fit the limit of {limits.downtime_limit_ms:g} ms",
        )
    if limits.max_rounds and len(rounds) >= limits.max_rounds:
        return Verdict(
            Decision.GIVE_UP,
            expected,
            f"{moved}: {expected:.0f} ms, above the limit of {limits.downtime_limit_ms:g} ms "
            f"after {len(rounds)} rounds",
        )
    return Verdict(
        Decision.CONTINUE,
        expected,
        f"{moved}: {expected:.0f} ms are above the limit of {limits.downtime_limit_ms:g} ms",
    )
