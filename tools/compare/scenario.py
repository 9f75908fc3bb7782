"""A scenario: what is compared, as a TOML file, and the points that it unfolds into.

    title = "..."                     size = "2G"            filled = 0.9375
    fill = "PATH"                     a corpus for the images (default: the files of this Python)
    repetitions = 3
    methods = ["none", "zstd"]        levels = [1, 3]        channels = [2]
    bandwidths = ["100M", "0"]        prealloc = [true]      dirty_rates = ["0", "32M"]
    images = ["corpus"]               kinds of `tools.measuring.images`, or paths of raw RAM images
    hosts = ["xeon", "epyc"]          kinds of host of a fleet (--cluster); default all that are there
    pairs = "all"                     or [["xeon", "epyc"], ...]: from the first to the second of each pair
    [[extra]]                         more points: axes that are named replace the scenario's

A level that a method does not have is left out for it; a method without levels counts once.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from guestmem.page import PAGE_BYTES
from guestmem.units import parse_size
from guestmem.workload import parse_rate
from pipeline.codecs import METHODS
from pipeline.errors import UsageError
from pipeline.options import AUTO, MAX_WORKERS
from tools.measuring.images import KINDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OURS = Path(__file__).with_name("scenarios")
AXES = ("methods", "levels", "channels", "bandwidths", "prealloc", "dirty_rates", "images")
ALL_PAIRS = "all"
HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Point:
    """One run: a place in the grid, and the number of the repetition.

    In a campaign over a fleet `host` is the kind of host that it runs on; of a pair of hosts `host` sends to
    `to_host`.
    """

    method: str
    level: int | None
    channels: int
    bandwidth: str
    prealloc: bool
    dirty_rate: str
    image: str
    repetition: int
    host: str = ""
    to_host: str = ""

    @property
    def key(self) -> str:
        """The file name, and the text that --filter matches."""
        place = self.place.replace("/", "+")
        return f"{place}_r{self.repetition}"

    @property
    def place(self) -> str:
        """The point without its repetition: `zstd-3_c2_b100M_prealloc_d0_corpus`."""
        return (
            f"{self.method_name.replace(' ', '.')}_c{self.channels}_b{self.bandwidth}_"
            f"{'prealloc' if self.prealloc else 'lazy'}_d{self.dirty_rate}_{self.image}{self._hosts}"
        )

    @property
    def _hosts(self) -> str:
        return "_h" + self.host + ("+" + self.to_host if self.to_host else "") if self.host else ""

    @property
    def hosts_words(self) -> str:
        """`xeon`, or `xeon to epyc`; nothing where all points run on this host."""
        return f"{self.host} to {self.to_host}" if self.to_host else self.host

    @property
    def method_name(self) -> str:
        """Method and level: `zstd 3`, or `none`."""
        return self.method if self.level is None else f"{self.method} {self.level}"

    @property
    def bandwidth_bytes(self) -> int:
        """Bytes per second, 0 without a limit."""
        return parse_rate(self.bandwidth)


@dataclass(frozen=True)
class Scenario:
    """A scenario as it was written in its file."""

    title: str
    size: str
    methods: tuple[str, ...]
    bandwidths: tuple[str, ...] = ("0",)
    levels: tuple[int, ...] = (1,)
    channels: tuple[int, ...] = (2,)
    prealloc: tuple[bool, ...] = (True,)
    dirty_rates: tuple[str, ...] = ("0",)
    images: tuple[str, ...] = ("corpus",)
    repetitions: int = 3
    filled: float = 0.9375
    fill: str | None = None
    hosts: tuple[str, ...] = ()
    pairs: str | tuple[Any, ...] | None = None
    extra: tuple[dict[str, Any], ...] = field(default=())

    @property
    def size_bytes(self) -> int:
        """RAM of the guest, in bytes."""
        return parse_size(self.size)

    def points(self) -> list[Point]:
        """Every point once; repetitions outermost, so that neighbours in time are other points."""
        places: dict[str, Point] = {}
        for part in (self, *(replace(self, **axes) for axes in self.extra)):
            for point in part._grid():
                places.setdefault(point.place, point)
        turns = range(1, self.repetitions + 1)
        return [replace(point, repetition=turn) for turn in turns for point in places.values()]

    def named_hosts(self) -> tuple[str, ...]:
        """The kinds of host that the scenario names; none is all that are there."""
        if isinstance(self.pairs, tuple):
            return tuple(dict.fromkeys(name for pair in self.pairs for name in pair))
        return self.hosts

    def points_on(self, hosts: Sequence[str]) -> list[Point]:
        """Every point on each of these kinds of host, or between pairs of them; hosts innermost, so that all
        of them have work."""
        ends: list[tuple[str, str]] = [(name, "") for name in hosts]
        if self.pairs == ALL_PAIRS:
            ends = list(itertools.permutations(hosts, 2))
        elif self.pairs is not None:
            ends = list(dict.fromkeys((pair[0], pair[1]) for pair in self.pairs))
        return [replace(point, host=a, to_host=b) for point in self.points() for a, b in ends]

    def _grid(self) -> list[Point]:
        found = []
        for method, channels, bandwidth, prealloc, rate, image in itertools.product(
            self.methods, self.channels, self.bandwidths, self.prealloc, self.dirty_rates, self.images
        ):
            for level in _levels(method, self.levels):
                found.append(Point(method, level, channels, bandwidth, prealloc, rate, image, 1))
        return found


def _levels(method: str, levels: tuple[int, ...]) -> list[int | None]:
    if method == AUTO or not METHODS[method].levels:
        return [None]
    return [level for level in levels if level in METHODS[method].levels]


def names() -> list[str]:
    """The scenarios that come with this program."""
    return sorted(path.stem for path in OURS.glob("*.toml"))


def load(text: str) -> Scenario:
    """A scenario by file, or by the name of one of ours. Raises UsageError."""
    path = OURS / f"{text}.toml" if text in names() else Path(text)
    try:
        with path.open("rb") as file:
            raw = tomllib.load(file)
    except OSError as error:
        raise UsageError(
            f"scenario {text}: {error.strerror}; the built-in ones are {', '.join(names())}"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"scenario {text}: {error}") from error
    known = {item.name for item in fields(Scenario)}
    for name in raw:
        if name not in known:
            raise UsageError(f"scenario {text}: {name} is not known; known are {', '.join(sorted(known))}")
    for name in ("title", "size", "methods"):
        if name not in raw:
            raise UsageError(f"scenario {text}: {name} is missing")
    extra = tuple(_frozen(text, axes, AXES) for axes in raw.pop("extra", []))
    scenario = Scenario(extra=extra, **_frozen(text, raw, known))
    check(scenario)
    return scenario


def _frozen(text: str, raw: dict[str, Any], known: Any) -> dict[str, Any]:
    for name in raw:
        if name not in known:
            raise UsageError(f"scenario {text}: {name} is not known here")
        if name in (*AXES, "hosts") and not isinstance(raw[name], list):
            raise UsageError(f"scenario {text}: {name} must be a list")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}


def check(scenario: Scenario) -> None:
    """Raise UsageError for a value that no run would accept."""
    for part in (scenario, *(replace(scenario, **axes) for axes in scenario.extra)):
        for method in part.methods:
            if method != AUTO and method not in METHODS:
                raise UsageError(f"methods: {method} is not one of {', '.join([AUTO, *METHODS])}")
        for count in part.channels:
            if not isinstance(count, int) or not 1 <= count <= MAX_WORKERS:
                raise UsageError(f"channels: {count} must be 1 to {MAX_WORKERS}")
        for image in part.images:
            if image not in KINDS and not Path(image).is_file():
                raise UsageError(f"images: {image} is neither one of {', '.join(KINDS)} nor a file")
        for rate in (*part.bandwidths, *part.dirty_rates):
            _checked_rate(rate)
    try:
        size = scenario.size_bytes
    except ValueError as error:
        raise UsageError(f"size: {scenario.size}: {error}") from error
    if size < 1 << 20 or size % PAGE_BYTES:
        raise UsageError(f"size: {scenario.size} must be 1M or more, a multiple of 4K")
    if not isinstance(scenario.repetitions, int) or not 1 <= scenario.repetitions <= 100:
        raise UsageError(f"repetitions: {scenario.repetitions} must be 1 to 100")
    _check_hosts(scenario)
    if not scenario.points():
        raise UsageError("the scenario has no point: no method has one of its levels")


def _check_hosts(scenario: Scenario) -> None:
    pairs = scenario.pairs
    if pairs is not None and pairs != ALL_PAIRS:
        if not isinstance(pairs, tuple) or not pairs:
            raise UsageError(f'pairs: {pairs} must be "all" or a list of pairs, as in [["xeon", "epyc"]]')
        for pair in pairs:
            named = isinstance(pair, list | tuple) and all(isinstance(name, str) for name in pair)
            if not named or len(set(pair)) != 2 or len(pair) != 2:
                raise UsageError(f"pairs: {pair} must be two hosts: from where, and to where")
        if scenario.hosts:
            raise UsageError("hosts: the pairs name the hosts; leave it out")
    for name in scenario.named_hosts():
        if not isinstance(name, str) or not HOST_NAME.fullmatch(name):
            raise UsageError(f"host {name}: must be letters, digits, dots, dashes, 63 at most")
    if len(set(scenario.hosts)) < len(scenario.hosts):
        raise UsageError("hosts: one of them is named twice")


def _checked_rate(rate: object) -> None:
    try:
        parse_rate(str(rate))
    except ValueError as error:
        raise UsageError(f"rate {rate}: {error}") from error
    if not isinstance(rate, str):
        raise UsageError(f"rate {rate}: write it as text, with quotes")
