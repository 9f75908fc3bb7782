"""What the points of a scenario say together: groups, spreads, winners."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from guestmem.units import show_rate
from pipeline.report.columns import who_worked
from tools.compare.scenario import Point
from tools.measuring.columns import cpu_seconds, spread_of
from tools.measuring.spread import Spread

ENOUGH_REPETITIONS = 3
WIDE_SPREAD = 0.10


@dataclass(frozen=True)
class Place:
    """A configuration with the results of all its repetitions."""

    point: Point
    results: tuple[dict[str, Any], ...]

    def spread(self, group: str, key: str) -> Spread:
        return spread_of(self.results, group, key)

    @property
    def total_ms(self) -> Spread:
        """Milliseconds from the first packet claimed to the last page applied."""
        return self.spread("time", "total_ms")

    @property
    def cpu_seconds(self) -> Spread:
        return cpu_seconds(self.results)

    @property
    def method_name(self) -> str:
        """Method and level, and who did the work of a device: `qatzip 1 (software)`."""
        worked = next((who_worked(result) for result in self.results if has_figures(result)), "")
        return self.point.method_name + worked


@dataclass(frozen=True)
class Link:
    """What must be equal for two methods to be compared: everything but method and level."""

    channels: int
    bandwidth: str
    prealloc: bool
    dirty_rate: str
    image: str
    hosts: str = ""

    @property
    def bandwidth_bytes(self) -> int:
        """Bytes per second, 0 without a limit."""
        return Point("none", None, 1, self.bandwidth, True, "0", "", 1).bandwidth_bytes

    @property
    def title(self) -> str:
        wire = "no bandwidth limit" if self.bandwidth_bytes == 0 else show_rate(self.bandwidth)
        rate = "idle guest" if self.dirty_rate == "0" else f"guest writes {show_rate(self.dirty_rate)}"
        prealloc = "prealloc" if self.prealloc else "no prealloc"
        hosts = f", {self.hosts}" if self.hosts else ""
        return f"{wire}, {self.channels_words}, {prealloc}, {rate}, {self.image}{hosts}"

    @property
    def short_title(self) -> str:
        """Channels, image and hosts: where bandwidths are told apart by other means."""
        return f"{self.channels_words}, {self.image}{f', {self.hosts}' if self.hosts else ''}"

    @property
    def channels_words(self) -> str:
        return "1 channel" if self.channels == 1 else f"{self.channels} channels"


def places(done: Iterable[tuple[Point, dict[str, Any]]]) -> list[Place]:
    """Group the repetitions of each place, in the order of the scenario."""
    found: dict[str, tuple[Point, list[dict[str, Any]]]] = {}
    for point, result in done:
        found.setdefault(point.place, (point, []))[1].append(result)
    return [Place(point, tuple(results)) for point, results in found.values()]


def by_link(all_places: list[Place]) -> dict[Link, list[Place]]:
    """Group the places that differ only in method and level."""
    found: dict[Link, list[Place]] = {}
    for place in all_places:
        found.setdefault(link_of(place.point), []).append(place)
    return found


def link_of(p: Point) -> Link:
    """A point's link."""
    return Link(p.channels, p.bandwidth, p.prealloc, p.dirty_rate, p.image, p.hosts_words)


def has_figures(result: dict[str, Any]) -> bool:
    """Whether a run came so far that it was measured: not where its host failed."""
    return "time" in result


def completed(place: Place) -> bool:
    """Whether every repetition completed."""
    return all(result["status"] == "completed" for result in place.results)


def clear_winner(group: list[Place]) -> Place | None:
    """The fastest place, if it is the fastest by more than the noise, which takes repetitions to know."""
    if any(len(place.results) < 2 for place in group):
        return None
    ended = sorted((place for place in group if completed(place)), key=lambda p: p.total_ms.median)
    if not ended or any(place.total_ms.overlaps(ended[0].total_ms) for place in ended[1:]):
        return None
    return ended[0]


def winner(group: list[Place]) -> str:
    """The fastest method, in words; no method where the ranges overlap."""
    ended = sorted((place for place in group if completed(place)), key=lambda p: p.total_ms.median)
    if not ended:
        return "no method completed"
    best = ended[0]
    tied = [place for place in ended[1:] if place.total_ms.overlaps(best.total_ms)]
    if tied:
        names = " and ".join([best.method_name, *(place.method_name for place in tied)])
        return f"{names} cannot be told apart within the noise"
    if len(ended) == 1:
        return best.method_name if len(group) == 1 else f"{best.method_name}, the only one that completed"
    factor = ended[1].total_ms.median / best.total_ms.median
    return f"{best.method_name}, {factor:.2f} x faster than {ended[1].method_name}"


def wins_words(winners: Iterable[str]) -> str:
    """How often each method was the fastest: `over all 120 links: zstd 1 on 80, none on 30, no one on 10`."""
    counts: Counter[str] = Counter()
    for words in winners:
        clear = "cannot be told apart" not in words and not words.startswith("no method")
        counts[words.partition(",")[0] if clear else "no one"] += 1
    said = ", ".join(f"{name} on {count}" for name, count in counts.most_common())
    return f"over all {counts.total()} links: {said}"


def doubts(all_places: list[Place]) -> list[str]:
    """Reasons not to trust these figures: too few repetitions, or too wide a spread."""
    found = []
    few = sum(len(place.results) < ENOUGH_REPETITIONS for place in all_places)
    if few:
        found.append(f"{few} of {len(all_places)} places have fewer than {ENOUGH_REPETITIONS} repetitions.")
    measured = [place for place in all_places if all(map(has_figures, place.results))]
    wide = [place for place in measured if place.total_ms.noise > WIDE_SPREAD]
    for place in wide:
        found.append(
            f"{place.method_name}, {place.point.place}: total ms spreads over {place.total_ms.noise:.0%}; "
            "repeat it on a quieter host."
        )
    return found


def failures(all_places: list[Place]) -> list[str]:
    """What points failed, and why: a line a reason and host."""
    found: Counter[tuple[str, str]] = Counter()
    for place in all_places:
        for result in place.results:
            if result["status"] == "failed":
                found[place.point.hosts_words, str(result["error"])] += 1
    return [
        f"{'1 point' if count == 1 else f'{count} points'}{f' on {hosts}' if hosts else ''}: {error}"
        for (hosts, error), count in found.most_common()
    ]
