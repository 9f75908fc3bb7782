"""What a forecast comes to: a table, a recommendation in words, and where another method would win."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from pipeline.forecast.bands import Band, Forecast, best, forecast
from pipeline.forecast.by_qemu import plan_of_vm
from pipeline.forecast.packet_size import PACKET_BYTES
from pipeline.forecast.qemu_limit import passed_bytes_per_second
from pipeline.forecast.situation import Candidate, Guest, Host, Plan
from pipeline.report.markdown import table

TITLES = (
    "method",
    "channels",
    "total s",
    "80 %",
    "downtime ms",
    "rounds",
    "wire MB",
    "send CPU s",
    "recv CPU s",
    "converges",
)
TIE = 0.03
"""Closer than this is no difference."""

SLOWEST_LINK, FASTEST_LINK, LINKS_A_DECADE = 10e6 / 8, 100e9 / 8, 6
LINK_DRAWS = 12


@dataclass(frozen=True)
class Question:
    """A guest, what may be taken for it, where, and how."""

    guest: Guest
    candidates: tuple[Candidate, ...]
    host: Host
    plan: Plan
    channels: tuple[int, ...]
    of_vm: bool = False
    """A VM that QEMU runs: QEMU itself moves it, or the relay."""

    def plan_for(self, candidate: Candidate, **changes: Any) -> Plan:
        """With these changes, for one candidate."""
        plan = replace(self.plan, **changes)
        return plan_of_vm(plan, candidate.method) if self.of_vm else plan


def answers(question: Question) -> list[Forecast]:
    """Every candidate with every number of channels."""
    return [
        forecast(
            question.guest,
            candidate,
            question.host,
            question.plan_for(candidate, channels=channels, receivers=channels),
        )
        for candidate in question.candidates
        for channels in question.channels
    ]


def rows(found: list[Forecast]) -> list[list[str]]:
    """A head, then one row a method and number of channels."""
    return [list(TITLES), *map(_row, found)]


def _row(one: Forecast) -> list[str]:
    total = one.bands["total_ms"]
    sure = one.chance_to_converge > 0
    return [
        one.label,
        str(one.channels),
        f"{total.expected / 1e3:.2f}" if sure else "-",
        f"{total.low / 1e3:.2f} to {total.high / 1e3:.2f}" if sure else "-",
        _span(one.bands["downtime_ms"]) if sure else "-",
        f"{one.bands['rounds'].expected:.0f}",
        f"{one.bands['wire_bytes'].expected / 1e6:.0f}",
        f"{one.bands['send_cpu_seconds'].expected:.2f}",
        f"{one.bands['recv_cpu_seconds'].expected:.2f}",
        f"{one.chance_to_converge:.0%}",
    ]


def render(found: list[Forecast]) -> str:
    """The table as Markdown."""
    return table(rows(found))


def _span(band: Band) -> str:
    return f"{band.expected:.0f} ({band.low:.0f} to {band.high:.0f})"


def recommendation(found: list[Forecast]) -> str:
    """Which, and by how much."""
    chosen = best(found)
    if not chosen.chance_to_converge:
        return (
            "No method converges: slow the guest down (--converge throttle, QEMU's auto-converge), allow a "
            "longer --downtime-limit, take a faster link, or use postcopy."
        )
    total = chosen.bands["total_ms"]
    words = (
        f"Take {said_name(chosen.label)} with {channels_words(chosen.channels)}: {total.low / 1e3:.2f} to "
        f"{total.high / 1e3:.2f} s (80 %){_margin(chosen, found)}"
    )
    if chosen.chance_to_converge < 1:
        words += f"; it converges in {chosen.chance_to_converge:.0%} of the draws only"
    return words + "."


def said_name(name: str) -> str:
    """`none` is a word as well."""
    return "method none" if name == "none" else name


def channels_words(channels: int) -> str:
    """`1 channel`, `2 channels`."""
    return f"{channels} channel{'s' if channels > 1 else ''}"


def _margin(chosen: Forecast, found: list[Forecast]) -> str:
    """Against the best of the other settings, and against sending it plain."""
    others = [one for one in found if one.name != chosen.name and one.chance_to_converge]
    if not others:
        alone = len({one.name for one in found}) == 1
        return "" if alone else "; no other method converges"
    next_best = best(others)
    words = f"; {said_name(next_best.label)} {_would_take(next_best, chosen)}"
    plain = [one for one in others if one.method == "none"]
    if plain and next_best.method != "none" and chosen.method != "none":
        words += f", method none {_would_take(best(plain), chosen)}"
    return words


def _would_take(other: Forecast, chosen: Forecast) -> str:
    times = other.bands["total_ms"].expected / chosen.bands["total_ms"].expected
    if abs(times - 1) < TIE:
        said = "would take as long"
    elif times < 1:
        said = f"would take {1 - times:.0%} less"
    else:
        said = f"would take {times - 1:.0%} longer" if times < 2 else f"would take {times:.1f} times as long"
    surely = chosen.chance_to_converge - other.chance_to_converge > TIE
    return said + (f" and converges in {other.chance_to_converge:.0%} of the draws" if surely else "")


# -------------------------------------------------------------------- other links


def links(own_bytes_per_second: float) -> list[int]:
    """Evenly in the logarithm, the user's own among them."""
    count = round(math.log10(FASTEST_LINK / SLOWEST_LINK) * LINKS_A_DECADE)
    found = {round(SLOWEST_LINK * 10 ** (step / LINKS_A_DECADE)) for step in range(count + 1)}
    return sorted(found | ({round(own_bytes_per_second)} if own_bytes_per_second else set()))


def by_link(question: Question) -> dict[int, list[Forecast]]:
    """Every candidate over links of many speeds, with few draws: for the picture and the break-evens."""
    most = max(question.channels)
    found: dict[int, list[Forecast]] = {}
    for link in links(question.plan.link_bytes_per_second):
        changes = {"link_bytes_per_second": link, "channels": most, "receivers": most}
        found[link] = [
            forecast(
                *(question.guest, candidate, question.host, question.plan_for(candidate, **changes)),
                draws=LINK_DRAWS,
            )
            for candidate in question.candidates
        ]
    return found


def break_evens(found: dict[int, list[Forecast]]) -> str:
    """Which method is the shortest over which links, in words."""
    stretches: list[tuple[str, float]] = []
    before: str | None = None
    last = 0.0
    for link, row in found.items():
        name = _winner(row, before)
        if name != before:
            stretches.append((said_name(name), math.sqrt(last * link)))
        before, last = name, link
    if len(stretches) == 1:
        low, high = link_words(min(found)), link_words(max(found))
        return f"Over other links: {stretches[0][0]}, from {low} to {high}."
    parts = [f"below about {link_words(stretches[1][1], 2)} {stretches[0][0]}"]
    parts += [f"{name} from there to {link_words(end, 2)}" for (name, _), (_, end) in pairwise(stretches[1:])]
    parts.append(f"above that {stretches[-1][0]}")
    return "Over other links: " + ", ".join(parts) + "."


def _winner(row: list[Forecast], before: str | None) -> str:
    """The shortest; what won over the link before stays where nothing is shorter by more than a tie."""
    first = best(row)
    if not first.chance_to_converge:
        return "no method converges"
    for one in row:
        as_sure = one.chance_to_converge >= first.chance_to_converge - 0.05
        longer = one.bands["total_ms"].expected / first.bands["total_ms"].expected - 1
        if one.label == before and as_sure and longer < TIE:
            return one.label
    return first.label


def limit_notes(question: Question) -> list[str]:
    """That QEMU exceeds its own limit, where one is set."""
    limit, channels = question.plan.qemu_limit_bytes_per_second, max(question.channels)
    if not limit:
        return []
    passed = passed_bytes_per_second(limit, channels, PACKET_BYTES)
    return [
        f"QEMU exceeds its max-bandwidth: with {channels_words(channels)} method none sends up to "
        f"{link_words(passed)} where the link carries it; the relay keeps to {link_words(limit)}"
    ]


def link_words(bytes_per_second: float, digits: int = 3) -> str:
    """`100 Mbit/s`, in so many digits."""
    mbit = float(f"{bytes_per_second * 8 / 1e6:.{digits}g}")
    return f"{mbit / 1000:g} Gbit/s" if mbit >= 1000 else f"{mbit:g} Mbit/s"
