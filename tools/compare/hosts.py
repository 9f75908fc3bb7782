"""The axis `hosts` of a campaign: which host for which method, and the links between pairs of hosts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

from tools.compare.comparison import Link, Place, by_link, clear_winner, completed, link_of
from tools.measuring.provenance import host_words

Rows = list[list[str]]
"""A table; its first row is the head."""

WHICH_HOST = "Which host for which method?"
HOW_TO_READ = (
    "Time against the fastest host of the same link, as a geometric mean over all links that every host "
    "completed (1.00: always the fastest); in brackets on how many of them it was the fastest by more than "
    "the noise."
)
LINKS = "Links between the hosts"
LINKS_WORDS = (
    "From the host of a row to that of a column: the most that any configuration brought onto the wire, in "
    "megabits per second, and the method that was the fastest most often."
)


def axis_of(all_places: list[Place]) -> list[str]:
    """The hosts, or pairs of hosts, of a campaign in their order; empty where all ran on this host."""
    return list(dict.fromkeys(place.point.hosts_words for place in all_places if place.point.host))


def host_lines(document: dict[str, Any]) -> list[str]:
    """What each kind of host is."""
    taking_part = {name for entry in document["points"] for name in _names(entry["point"])}
    return [
        f"{name}: {host_words(record)}"
        for name, record in document.get("hosts", {}).items()
        if name in taking_part
    ]


def _names(point: dict[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in (point.get("host"), point.get("to_host")) if name)


def which_host(all_places: list[Place]) -> Rows:
    """A row a host or pair, a column a method; no rows where there is but one host."""
    hosts = axis_of(all_places)
    if len(hosts) < 2:
        return []
    by_method: dict[str, dict[Link, list[Place]]] = {}
    for place in all_places:
        link = replace(link_of(place.point), hosts="")
        by_method.setdefault(place.point.method_name, {}).setdefault(link, []).append(place)
    columns = {method: _column(hosts, list(links.values())) for method, links in by_method.items()}
    cells = [[column[number] for column in columns.values()] for number in range(len(hosts))]
    return [["host", *columns], *([host, *cells[number]] for number, host in enumerate(hosts))]


def _column(hosts: list[str], links: list[list[Place]]) -> list[str]:
    """A cell a host, for one method. Each link has a place a host."""
    shared = [group for group in links if len(group) == len(hosts) and all(map(completed, group))]
    if not shared:
        return ["-"] * len(hosts)
    logs = dict.fromkeys(hosts, 0.0)
    wins: Counter[str] = Counter()
    for group in shared:
        best = min(place.total_ms.median for place in group)
        for place in group:
            logs[place.point.hosts_words] += math.log(place.total_ms.median / best)
        if (won := clear_winner(group)) is not None:
            wins[won.point.hosts_words] += 1
    return [f"{math.exp(logs[host] / len(shared)):.2f} ({wins[host]} of {len(shared)})" for host in hosts]


def link_matrix(all_places: list[Place]) -> Rows:
    """From the host of a row to that of a column; no rows where no pair was measured."""
    pairs: dict[tuple[str, str], list[Place]] = {}
    for place in all_places:
        if place.point.to_host:
            pairs.setdefault((place.point.host, place.point.to_host), []).append(place)
    if not pairs:
        return []
    names = sorted({name for pair in pairs for name in pair})
    return [
        ["from", *(f"to {name}" for name in names)],
        *([a, *(_link_cell(pairs.get((a, b), []), same=a == b) for b in names)] for a in names),
    ]


def _link_cell(group: list[Place], *, same: bool) -> str:
    ended = [place for place in group if completed(place)]
    if not ended:
        return "" if same else ("failed" if group else "-")
    most = max(place.spread("traffic", "throughput_mbps").median for place in ended)
    wins = Counter(
        won.method_name for link in by_link(ended).values() if (won := clear_winner(link)) is not None
    )
    return f"{most:.0f}, {wins.most_common(1)[0][0]}" if wins else f"{most:.0f}"
