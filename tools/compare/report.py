"""A comparison as Markdown, in the columns and the grouping of the published tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.options import AUTO
from pipeline.report.markdown import table
from tools.compare import hosts
from tools.compare.comparison import (
    Link,
    Place,
    by_link,
    completed,
    doubts,
    failures,
    has_figures,
    places,
    winner,
)
from tools.compare.published import TABLES, PublishedTable
from tools.compare.scenario import Point
from tools.measuring.break_even import Crossing, Lines, break_evens
from tools.measuring.columns import TITLES, cells

HEAD = ["method", *TITLES, "CPU s per GiB", "rounds"]


def places_of(document: dict[str, Any]) -> list[Place]:
    """The points of a document, grouped by place."""
    return places((Point(**entry["point"]), entry["result"]) for entry in document["points"])


def row(place: Place) -> list[str]:
    """A place's row under HEAD."""
    if not completed(place):
        status = next(r["status"] for r in place.results if r["status"] != "completed")
        return [place.method_name, status, *["-"] * (len(HEAD) - 2)]
    gib = place.results[0]["options"]["size_bytes"] / 2**30
    return [
        place.method_name,
        *cells(place.results),
        f"{place.cpu_seconds.median / gib:.2f}",
        f"{max(len(result['rounds']) for result in place.results)}",
    ]


def lines_of(document: dict[str, Any]) -> dict[Link, Lines]:
    """Total ms over bandwidth, a line a method, for everything else that was compared."""
    found: dict[Link, Lines] = {}
    for link, group in by_link(places_of(document)).items():
        whole = replace(link, bandwidth="0")
        for place in group:
            if completed(place):
                line = found.setdefault(whole, {}).setdefault(place.method_name, [])
                line.append((link.bandwidth_bytes, place.total_ms.median))
    return {link: lines for link, lines in found.items() if any(len(line) > 1 for line in lines.values())}


def crossings_of(document: dict[str, Any]) -> list[tuple[Link, Crossing]]:
    """Every bandwidth at which the fastest method changes. Auto is left out: it changes along with it."""
    found = []
    for link, lines in lines_of(document).items():
        fixed = {name: line for name, line in lines.items() if name.split()[0] != AUTO}
        found += [(link, one) for one in break_evens(fixed)]
    return found


def markdown(document: dict[str, Any], *, published: bool) -> str:
    """The whole report as Markdown."""
    scenario = document["scenario"]
    parts = [
        f"# {scenario['title']}",
        "",
        f"{where_words(document)}guest of {scenario['size']}; "
        f"measured {measured_at(document)}; medians, with the minimum and maximum of total ms.",
    ]
    all_places = places_of(document)
    parts += _about_hosts(document, all_places)
    for link, group in by_link(all_places).items():
        parts += [
            "",
            f"## {link.title}",
            "",
            table([HEAD, *map(row, group)]),
            "",
            f"Fastest: {winner(group)}.",
        ]
    found = crossings_of(document)
    if found:
        parts += ["", "## Break-even bandwidths", ""]
        parts += [f"- {one.words} ({link.short_title})." for link, one in found]
    if failed := failures(all_places):
        parts += ["", "## What failed", "", *(f"- {one}" for one in failed)]
    if uncertain := doubts(all_places):
        parts += ["", "## Noise", "", *(f"- {doubt}" for doubt in uncertain)]
    if published and any(map(completed, all_places)):
        parts += ["", *published_text(all_places)]
    return "\n".join(parts)


def where_words(document: dict[str, Any]) -> str:
    """This host, where it ran the points: a campaign's hosts have a list of their own."""
    host = document["host"]
    if document["points"][0]["point"].get("host"):
        return ""
    return f"{host['cpus']} CPUs, {host['cpu_model']}, Linux {host['kernel']}; "


def _about_hosts(document: dict[str, Any], all_places: list[Place]) -> list[str]:
    """Of a campaign: its hosts, which of them for which method, and the links between them."""
    parts: list[str] = []
    if lines := hosts.host_lines(document):
        parts += ["", "## Hosts", "", *(f"- {line}" for line in lines)]
    if rows := hosts.which_host(all_places):
        parts += ["", f"## {hosts.WHICH_HOST}", "", hosts.HOW_TO_READ, "", table(rows)]
    if rows := hosts.link_matrix(all_places):
        parts += ["", f"## {hosts.LINKS}", "", hosts.LINKS_WORDS, "", table(rows)]
    return parts


def measured_at(document: dict[str, Any]) -> str:
    """The days on which the points were measured."""
    days = sorted({entry["result"]["measured_at"][:10] for entry in document["points"]})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


# ---------------------------------------------------------------- beside what was published


UNLIMITED = 10**12
BASE = "zstd"
"""Ratios are to this method: absolute figures of other hosts, images and links do not transfer."""


def published_text(all_places: list[Place]) -> list[str]:
    """Every published table, its ratios between methods beside ours at the same channels, as Markdown."""
    parts = ["## Beside what was published", "", published_words(all_places)]
    for source, rows in published_tables(all_places):
        parts += ["", f"### {source}", "", table(rows)]
    return parts


def published_words(all_places: list[Place]) -> str:
    """What is compared, and where both sides were measured."""
    host = next(one["host"] for place in all_places for one in place.results if has_figures(one))
    days = sorted({result["measured_at"][:10] for place in all_places for result in place.results})
    return (
        f"Ratios to {BASE} of the same host and link: absolute figures of other hosts do not transfer. "
        "Published: 2024, Xeon hosts with four QAT devices, no prealloc. "
        f"Ours: {host['cpus']} CPUs, {host['cpu_model']}, {days[-1]}."
    )


def published_tables(all_places: list[Place]) -> list[tuple[str, list[list[str]]]]:
    """Each published table's source, and its rows, the first of which is their head."""
    return [(published.source, _published_rows(published, all_places)) for published in TABLES]


def _published_rows(published: PublishedTable, all_places: list[Place]) -> list[list[str]]:
    out = [
        [
            *("method", "channels", "their ms", "their x zstd", "their send CPU x"),
            *("our ms", "our x zstd", "our send CPU x", "our link"),
        ]
    ]
    for channels in sorted({one.channels for one in published.rows}):
        rows = [one for one in published.rows if one.channels == channels]
        base = next(one for one in rows if one.method == BASE)
        link, ours = _our_link(published, channels, {one.method for one in rows}, all_places)
        for one in rows:
            out.append(
                [
                    one.method,
                    str(channels),
                    f"{one.total_ms:.0f}",
                    f"{one.total_ms / base.total_ms:.2f}",
                    f"{one.send_cpu * one.total_ms / (base.send_cpu * base.total_ms):.2f}",
                    *_our_cells(ours.get(one.method), ours.get(BASE), link),
                ]
            )
    return out


def _our_cells(place: Place | None, base: Place | None, link: Link | None) -> list[str]:
    if place is None or link is None:
        return ["-", "-", "-", "not measured"]
    cells = [f"{place.total_ms.median:.0f}", "-", "-"]
    if base is not None:
        cpu, of = place.spread("send", "cpu_seconds").median, base.spread("send", "cpu_seconds").median
        cells[1] = f"{place.total_ms.median / base.total_ms.median:.2f}"
        cells[2] = f"{cpu / of:.2f}" if of else "-"
    note = next((f" ({word})" for word in ("software", "simulated") if word in place.method_name), "")
    return [*cells, f"{link.title}{note}"]


def _our_link(
    published: PublishedTable, channels: int, methods: set[str], all_places: list[Place]
) -> tuple[Link | None, dict[str, Place]]:
    """Our link that is nearest to a published one, with our places by method; an idle guest's."""
    limit = published.bandwidth_bytes or UNLIMITED

    def distance(link: Link) -> tuple[int, int, float, bool]:
        bandwidth = link.bandwidth_bytes or UNLIMITED
        missing = len(methods - found[link].keys())
        apart = max(bandwidth, limit) / min(bandwidth, limit)
        return missing, abs(link.channels - channels), apart, link.prealloc

    found = {
        link: {
            place.point.method: place
            for place in group
            if completed(place) and place.point.level in (None, 1)
        }
        for link, group in by_link(all_places).items()
        if link.dirty_rate == "0"
    }
    if not found:
        return None, {}
    nearest = min(found, key=distance)
    return nearest, found[nearest]
