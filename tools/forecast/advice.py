"""What a forecast comes to: a table, a recommendation in words, and the commands to type."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby

from pipeline.forecast.bands import Band, Forecast, best, forecast
from pipeline.forecast.situation import Candidate, Guest, Host, Plan
from pipeline.report.markdown import table

TITLES = (
    "method | channels | total s | 80 % | downtime ms | rounds | wire MB | send CPU | recv CPU | converges"
)
RELAY = "python -m pipeline.relay"
TIE = 0.03
"""Closer than this is no difference."""

LINKS_BYTES = tuple(int(mbit * 1e6 / 8) for mbit in (10, 30, 100, 300, 1000, 3000, 10000, 30000, 100000))
LINK_DRAWS = 12


@dataclass(frozen=True)
class Question:
    """A guest, what may be taken for it, where, and how."""

    guest: Guest
    candidates: tuple[Candidate, ...]
    host: Host
    plan: Plan
    channels: tuple[int, ...]


def answers(question: Question) -> list[Forecast]:
    """Every candidate with every number of channels."""
    return [
        forecast(
            question.guest,
            candidate,
            question.host,
            replace(question.plan, channels=channels, receivers=channels),
        )
        for candidate in question.candidates
        for channels in question.channels
    ]


def render(found: list[Forecast]) -> str:
    """One row a method and number of channels."""
    rows = [TITLES.split("|")]
    for one in found:
        total, downtime = one.bands["total_ms"], one.bands["downtime_ms"]
        sure = one.chance_to_converge > 0
        rows.append(
            [
                one.label,
                str(one.channels),
                f"{total.expected / 1e3:.2f}" if sure else "-",
                f"{total.low / 1e3:.2f} to {total.high / 1e3:.2f}" if sure else "-",
                _span(downtime) if sure else "-",
                f"{one.bands['rounds'].expected:.0f}",
                f"{one.bands['wire_bytes'].expected / 1e6:.0f}",
                f"{one.bands['send_cpu_seconds'].expected:.2f}",
                f"{one.bands['recv_cpu_seconds'].expected:.2f}",
                f"{one.chance_to_converge:.0%}",
            ]
        )
    return table(rows)


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
    rest = [one for one in found if one.method != chosen.method and one.chance_to_converge]
    words = f"Take {chosen.label} with {chosen.channels} channels: {_seconds(chosen)}"
    if rest:
        other = best(rest)
        ours, theirs = (one.bands["total_ms"].expected for one in (chosen, other))
        longer = theirs / ours - 1
        words += (
            f"; {other.label} would take as long"
            if abs(longer) < TIE
            else f", {abs(1 - ours / theirs):.0%} {'less' if longer > 0 else 'more'} than {other.label}"
        )
    if chosen.chance_to_converge < 1:
        words += f"; it converges in {chosen.chance_to_converge:.0%} of the draws only"
    return words + "."


def _seconds(one: Forecast) -> str:
    total = one.bands["total_ms"]
    return f"{total.low / 1e3:.2f} to {total.high / 1e3:.2f} s (80 %)"


def by_link(question: Question) -> dict[int, list[Forecast]]:
    """Every candidate over links of many speeds, with few draws: for the picture and the break-evens."""
    found: dict[int, list[Forecast]] = {}
    for link in LINKS_BYTES:
        plan = replace(
            question.plan,
            link_bytes_per_second=link,
            channels=max(question.channels),
            receivers=max(question.channels),
        )
        found[link] = [
            forecast(question.guest, candidate, question.host, plan, draws=LINK_DRAWS)
            for candidate in question.candidates
        ]
    return found


def break_evens(links: dict[int, list[Forecast]]) -> str:
    """Which method is the shortest over which links, in words."""
    winners = [(link, best(found)) for link, found in links.items()]
    parts = []
    for name, group in groupby(winners, lambda one: _winner(one[1])):
        speeds = [link for link, _ in group]
        low, high = _link(speeds[0]), _link(speeds[-1])
        parts.append(f"{name} at {low}" if low == high else f"{name} from {low} to {high}")
    return "Over other links: " + ", ".join(parts) + "."


def _link(bytes_per_second: int) -> str:
    mbit = bytes_per_second * 8 / 1e6
    return f"{mbit / 1000:g} Gbit/s" if mbit >= 1000 else f"{mbit:g} Mbit/s"


def _winner(one: Forecast) -> str:
    return one.label if one.chance_to_converge else "no method converges"


def commands(chosen: Forecast, *, live_vm: bool) -> str:
    """What to type for it."""
    level = "" if chosen.level is None else f":{chosen.level}"
    lines = []
    if live_vm:
        if chosen.method in ("none", "zlib", "zstd"):
            lines += [
                "QEMU by itself (both sides, then the source):",
                '  {"execute": "migrate-set-capabilities", "arguments": {"capabilities": '
                '[{"capability": "multifd", "state": true}, {"capability": "return-path", "state": true}]}}',
                '  {"execute": "migrate-set-parameters", "arguments": {"multifd-channels": '
                f'{chosen.channels}, "multifd-compression": "{chosen.method}"'
                + (f', "multifd-{chosen.method}-level": {chosen.level}' if chosen.level is not None else "")
                + "}}",
                '  {"execute": "migrate", "arguments": {"uri": "tcp:DESTINATION:4444"}}',
                "libvirt: virsh migrate --live --parallel --parallel-connections "
                f"{chosen.channels}"
                + ("" if chosen.method == "none" else f" --comp-methods {chosen.method}")
                + " DOMAIN qemu+ssh://DESTINATION/system",
            ]
        lines += [
            "Through the relay (docs/relay.md; the destination first):",
            f"  {RELAY} --accept DESTINATION:7000 --tls-dir certs --deliver unix:in.sock --qmp D.sock",
            f"  {RELAY} --listen unix:out.sock --to DESTINATION:7000 --tls-dir certs --qmp S.sock "
            f"--migrate --multifd {chosen.channels} --method {chosen.method}{level}",
        ]
    else:
        how = f"--method {chosen.method}{level} --channels {chosen.channels}"
        lines.append(f"  python -m pipeline.run --prealloc {how}")
    return "\n".join(lines)
