"""When to go on, when to stop and copy, throttle, give up: pure functions over measured rounds.

Two policies. `guest-rate`, ours, asks how long the dirty pages will take at the rate at which *guest*
bytes were moved lately, and foresees later rounds by the guest's dirty curve. `qemu` decides as
QEMU's migration_iteration_run does: uncompressed pages against *wire* bandwidth, so that with a
compression ratio of r it waits for a dirty set r times smaller than needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from guestmem.page import PAGE_BYTES
from pipeline.delta_figures import DeltaFigures
from pipeline.dirty_curve import DirtyCurve

OWN_POLICY, QEMU_POLICY = "guest-rate", "qemu"
CONVERGE = ("none", "throttle", "downtime-ramp")

RATE_WINDOW_BYTES = 64 << 20
RATE_WINDOW_MS = 200.0
"""The rate is taken over the latest rounds that together moved this much, or took this long:
enough that one delayed wake-up does not decide, recent enough to follow a change."""

KEPT_BACK = 0.2
KEPT_BACK_AFTER_ONE_ROUND = 0.35
"""The share of the downtime limit that policy `guest-rate` leaves for noise: a worker may wake late.
More after the first round, whose pages are not those that the guest rewrites: over a wire of 60 MB/s
the Silesia files went at a ratio of 3.8, pages of them that a guest had shuffled at 2.8, and a
switchover expected to take 230 ms took 288."""

FORESEEN_ROUNDS = 200
STALLED_ROUNDS = 3
"""So many rounds one after the other must foresee no end before the run is given up."""

RAMP_STEPS = 5
QEMU_PATIENCE = 2
"""QEMU throttles each second time the trigger is exceeded (migration_trigger_throttle)."""


@dataclass(frozen=True)
class PolicySettings:
    """What the user allows. Throttle figures in per cent; `max_rounds` 0 is no limit."""

    policy: str = OWN_POLICY
    downtime_limit_ms: float = 300.0
    downtime_max_ms: float = 900.0
    max_rounds: int = 100
    converge: str = "none"
    throttle_trigger: int = 50
    throttle_initial: int = 20
    throttle_increment: int = 10
    throttle_max: int = 99


@dataclass(frozen=True)
class RoundFigures:
    """What one round moved, and what the guest did meanwhile.

    `dirty_pages` were dirty at its end, a page written twice counting once.
    """

    round: int
    pages: int
    normal_pages: int
    zero_pages: int
    wire_bytes: int
    duration_ms: float
    dirty_pages: int
    curve: DirtyCurve
    throttle_percent: int = 0
    paused: bool = False
    decided_by: Verdict | None = None
    """The verdict that led to this round; None for the first one, and where something else did."""
    deltas: DeltaFigures | None = None
    """None where none were meant to go."""

    @property
    def dirty_pages_per_second(self) -> float:
        return self.dirty_pages / self.duration_ms * 1e3 if self.duration_ms else 0.0


class Decision(Enum):
    """What to do after a round."""

    CONTINUE = "continue"
    SWITCH_OVER = "switch over"
    GIVE_UP = "give up"


@dataclass(frozen=True)
class Verdict:
    """A decision, the downtime it expects of a switchover now, and its reason in words.

    `rounds_left` is how many more rounds are foreseen, None for no end. `wasted_rounds`: with
    GIVE_UP, how many rounds the limit would still have allowed.
    """

    decision: Decision
    expected_downtime_ms: float
    reason: str
    throttle_percent: int
    downtime_limit_ms: float
    rounds_left: int | None = None
    wasted_rounds: int | None = None


@dataclass(frozen=True)
class Situation:
    """Where a migration stands after a round: every verdict and round so far, and how long the dirty log
    took to be fetched last, which a switchover has to do once more while the guest stands still."""

    rounds: Sequence[RoundFigures]
    verdicts: Sequence[Verdict]
    throttle_percent: int
    downtime_limit_ms: float
    sync_ms: float = 0.0


def guest_bytes_per_second(rounds: Sequence[RoundFigures]) -> float:
    """The rate at which guest bytes were moved lately: uncompressed, whatever the wire carried.

    Pages that were not zero are counted, since those are what a busy guest leaves; where there
    were none, all pages.
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


def wire_bytes_per_second(rounds: Sequence[RoundFigures]) -> float:
    """What QEMU calls bandwidth: bytes on the wire, compressed."""
    last = rounds[-1]
    return last.wire_bytes / last.duration_ms * 1e3 if last.duration_ms else 0.0


def milliseconds_for(pages: float, bytes_per_second: float) -> float:
    """How long `pages` take at a rate; no pages take no time, whatever the rate."""
    if not pages:
        return 0.0
    return pages * PAGE_BYTES / bytes_per_second * 1e3 if bytes_per_second else float("inf")


def foreseen_rounds(
    curve: DirtyCurve, pending_pages: int, bytes_per_second: float, limit_ms: float
) -> int | None:
    """How many more rounds until the dirty pages fit the limit, by this guest's curve.

    Each round lasts as long as its pages take, and leaves what the curve says of that time. None
    when that does not come down to the limit within FORESEEN_ROUNDS.
    """
    pages: float = pending_pages
    for number in range(FORESEEN_ROUNDS):
        duration = milliseconds_for(pages, bytes_per_second)
        if duration <= limit_ms:
            return number
        if duration == float("inf"):
            return None
        pages = curve.pages_after(duration / 1e3)
    return None


def decide(settings: PolicySettings, now: Situation) -> Verdict:
    """What to do after the last round."""
    return POLICIES[settings.policy](settings, now)


def _decide_by_guest_rate(settings: PolicySettings, now: Situation) -> Verdict:
    last = now.rounds[-1]
    rate = guest_bytes_per_second(now.rounds)
    expected = milliseconds_for(last.dirty_pages, rate) + now.sync_ms
    moved = f"{last.dirty_pages} pages are dirty and guest bytes move at {rate / 1e6:.0f} MB/s"

    limit = now.downtime_limit_ms
    kept_back = KEPT_BACK if len(now.rounds) > 1 else KEPT_BACK_AFTER_ONE_ROUND
    ahead = foreseen_rounds(last.curve, last.dirty_pages, rate, limit * (1 - kept_back) - now.sync_ms)
    ramped = ""
    if settings.converge == "downtime-ramp" and ahead is None and limit < settings.downtime_max_ms:
        step = (settings.downtime_max_ms - settings.downtime_limit_ms) / RAMP_STEPS
        limit = min(limit + step, settings.downtime_max_ms)
        ahead = foreseen_rounds(last.curve, last.dirty_pages, rate, limit * (1 - kept_back) - now.sync_ms)
        ramped = f"; the limit is raised to {limit:g} ms"
    throttle, throttled = _throttle(settings, now, ahead)

    def verdict(decision: Decision, reason: str, wasted: int | None = None) -> Verdict:
        return Verdict(decision, expected, moved + reason, throttle, limit, ahead, wasted)

    if expected <= limit * (1 - kept_back):
        return verdict(Decision.SWITCH_OVER, f": {expected:.1f} ms fit the limit of {limit:g} ms{ramped}")
    above = f": {expected:.0f} ms, of a limit of {limit:g} ms less {kept_back:.0%} for noise"
    wasted = max(0, settings.max_rounds - len(now.rounds)) if settings.max_rounds else None
    may_still_help = throttled or ramped
    if ahead is None and not may_still_help and _stalled(now):
        saved = f"; ends {wasted} rounds early" if wasted is not None else ""
        return verdict(
            Decision.GIVE_UP,
            f"{above}; for {STALLED_ROUNDS} rounds the dirty curve has shown no end{saved}",
            wasted,
        )
    if settings.max_rounds and len(now.rounds) >= settings.max_rounds:
        return verdict(Decision.GIVE_UP, f"{above} after {len(now.rounds)} rounds", 0)
    hope = "no end is in sight" if ahead is None else _foreseen(ahead)
    return verdict(Decision.CONTINUE, f"{above}; {hope}{throttled}{ramped}")


def _foreseen(rounds: int) -> str:
    return "1 more round is foreseen" if rounds == 1 else f"{rounds} more rounds are foreseen"


def _stalled(now: Situation) -> bool:
    """Whether the verdicts before this one foresaw no end either."""
    before = now.verdicts[-(STALLED_ROUNDS - 1) :]
    return len(before) == STALLED_ROUNDS - 1 and all(verdict.rounds_left is None for verdict in before)


def _throttle(settings: PolicySettings, now: Situation, ahead: int | None) -> tuple[int, str]:
    """The throttle for the next round, and words for a change. Ours steps up only when the curve
    shows no end: a guest that would converge by itself keeps its speed."""
    last = now.rounds[-1]
    current = now.throttle_percent
    busy = last.dirty_pages > last.normal_pages * settings.throttle_trigger / 100
    if settings.converge != "throttle" or ahead is not None or not busy:
        return current, ""
    return _step_up(settings, current)


def _step_up(settings: PolicySettings, current: int) -> tuple[int, str]:
    higher = current + settings.throttle_increment if current else settings.throttle_initial
    higher = min(higher, settings.throttle_max)
    if higher <= current:
        return current, ""
    return higher, f"; the guest is throttled to {100 - higher} % of its speed"


def _decide_as_qemu(settings: PolicySettings, now: Situation) -> Verdict:
    last = now.rounds[-1]
    bandwidth = wire_bytes_per_second(now.rounds)
    pending = last.dirty_pages * PAGE_BYTES
    threshold = bandwidth / 1e3 * settings.downtime_limit_ms
    expected = milliseconds_for(last.dirty_pages, bandwidth)
    said = (
        f"{pending / 1e6:.1f} MB are dirty, and the wire carries {threshold / 1e6:.1f} MB "
        f"in {settings.downtime_limit_ms:g} ms"
    )
    throttle, throttled = now.throttle_percent, ""
    busy = [
        one
        for one in now.rounds
        if one.dirty_pages * PAGE_BYTES > one.wire_bytes * settings.throttle_trigger / 100
    ]
    if settings.converge == "throttle" and last in busy and len(busy) % QEMU_PATIENCE == 0:
        throttle, throttled = _step_up(settings, throttle)
    decision = Decision.CONTINUE
    wasted = None
    if pending <= threshold:
        decision = Decision.SWITCH_OVER
    elif settings.max_rounds and len(now.rounds) >= settings.max_rounds:
        decision, wasted = Decision.GIVE_UP, 0
        said += f", after {len(now.rounds)} rounds"
    return Verdict(decision, expected, said + throttled, throttle, settings.downtime_limit_ms, None, wasted)


POLICIES: dict[str, Callable[[PolicySettings, Situation], Verdict]] = {
    OWN_POLICY: _decide_by_guest_rate,
    QEMU_POLICY: _decide_as_qemu,
}
