"""`python -m tools.fleet.rack DIR`: a rack of namespaces with guests that write, to empty it and compare.

It makes two or three source hosts and two that take, behind one uplink, and guests of 64 to 256 MiB on them;
looks at each guest, migrates as many at once as the plan does, to see what starting takes where all hosts
share these CPUs; writes DIR/plan.toml and DIR/here.toml, carries the plan out by `tools.evacuate --execute`,
and prints what was planned beside what happened.
"""

from __future__ import annotations

if __name__ == "__main__":  # in front of imports that take time, in which a signal may come
    import sys

    from pipeline.cli.main import execute

    sys.exit(execute("tools.fleet.rack", sys.argv[1:]))

import itertools
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pipeline.cli.main import Command, show
from pipeline.cli.parser import Parser
from pipeline.cli.values import Given
from pipeline.errors import RunFailed, UsageError
from pipeline.forecast.host_profile import CodecSpeed, HostProfile, profile_toml
from pipeline.processes.cgroup import usable_cpus
from pipeline.report.files import save_text
from tools.fleet.look import Seen
from tools.fleet.namespaces import FIRST_PORT, Place, Rack, rack
from tools.measuring.progress import say

SIZES_MIB = (64, 96, 128, 192, 256)
RATES = ("0", "1M", "2M", "4M")
TAKERS = 2
GUEST_SECONDS = 60.0
PAYLOAD_SHARE = 1448 / 1514
"""Data in a full frame of Ethernet as `tc` counts it: 1500 bytes less IP's and TCP's headers (with their time
stamps, RFC 7323), and 14 of its own."""


@dataclass(frozen=True)
class Guest:
    """A guest of the rack; `options` are those of tools.dirtyrate."""

    name: str
    place: Place
    size_mib: int
    options: tuple[str, ...]


def build_parser(program: str) -> Parser:
    """All options, with units and defaults."""
    parser = Parser(program, "Make a rack out of network namespaces, empty it, and score the plan.", 1, 3)
    add = parser.add_argument
    add("output", metavar="DIR", help="where plan.toml, here.toml and executed.json go")
    add("--guests", metavar="N", help="guests, 1 to 32 (default 8)")
    add("--sources", metavar="N", help="hosts that are emptied, 1 to 8 (default 3)")
    add("--uplink", metavar="MBIT", help="megabits a second of the shared uplink (default 200)")
    add("--seed", metavar="N", help="of the guests' sizes and rates (default 1)")
    add("--keep", action="store_const", const=True, help="do not empty it: keep it until Ctrl-C")
    return parser


def run(given: Given, command: list[str]) -> int:
    """Make, plan, carry out; the exit code of tools.evacuate."""
    folder = Path(str(given.text("output")))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}") from error
    count, sources = given.whole("guests", 1, 32, 8), given.whole("sources", 1, 8, 3)
    with rack(sources, TAKERS, given.whole("uplink", 1, 100_000, 200)) as made:
        guests = _guests(made, count, given.whole("seed", 0, 1 << 31, 1))
        with _running(guests):
            say(f"looking at {count} guests")
            seen = [_look(guest) for guest in guests]
            together = min(sources, count)
            plan, beside = _rehearsed(folder, made, guests, seen, together)
            while (asked := _most_at_once(plan)) > together:
                plan, beside = _rehearsed(folder, made, guests, seen, together := asked)
            say(f"beside its pages a migration takes {beside:.2f} s where {together} start at once")
            words = [sys.executable, "-m", "tools.evacuate", str(plan)]
            if given.flag("keep"):
                show(f"{' '.join(words[1:])} --execute --insecure")
                signal.pause()
            state = Path(f"{plan}.state.json")
            state.unlink(missing_ok=True)
            outputs = ["--json", str(folder / "executed.json"), "--html", str(folder / "executed.html")]
            return subprocess.run([*words, "--execute", "--insecure", *outputs], check=False).returncode


def _guests(made: Rack, count: int, seed: int) -> list[Guest]:
    """Spread over the sources; sizes and rates by the seed."""
    chance = random.Random(seed)
    found = []
    for number, place in zip(range(count), itertools.cycle(made.sources), strict=False):
        size, rate = chance.choice(SIZES_MIB), chance.choice(RATES)
        options = ("--size", f"{size}M", "--dirty-rate", rate, "--dirty-pattern", "hotspot:0.9,0.1")
        found.append(
            Guest(f"{made.sources[0].netns}-vm{number}", place, size, (*options, "--seed", str(number)))
        )
    return found


@contextmanager
def _running(guests: Sequence[Guest]) -> Iterator[None]:
    """All guests write until the end."""
    started: list[subprocess.Popen[str]] = []
    try:
        for guest in guests:
            words = ["-m", "tools.dirtyrate", "--create", guest.name, *guest.options]
            started.append(
                subprocess.Popen(
                    [*guest.place.prefix, sys.executable, *words],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(30)


def _look(guest: Guest) -> Seen:
    """In its namespace, once it is there. Raises RunFailed."""
    words = [*guest.place.prefix, sys.executable, "-m", "tools.fleet.look", guest.name]
    deadline = time.monotonic() + GUEST_SECONDS
    while True:
        found = subprocess.run(words, capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return Seen(**json.loads(found.stdout))
        if time.monotonic() > deadline:
            raise RunFailed(f"guest {guest.name}: {found.stderr.strip()}")
        time.sleep(0.3)


def _rehearsed(
    folder: Path, made: Rack, guests: Sequence[Guest], seen: Sequence[Seen], together: int
) -> tuple[Path, float]:
    """A plan with what so many that start at once take beside their pages, and that in seconds."""
    beside = _rehearse(made, guests[:together])
    return _write(folder, made, guests, seen, beside), beside


def _most_at_once(plan: Path) -> int:
    """So many migrations of a plan run at some moment."""
    words = ["-m", "tools.evacuate", str(plan), "--json", "-", "--draws", "0", "--quiet"]
    found = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode:
        raise RunFailed(f"the plan failed with exit code {found.returncode}")
    rows = json.loads(found.stdout)["migrations"]
    spans = [(float(row["start_seconds"]), float(row["end_seconds"])) for row in rows]
    return max(sum(begun <= at < ended for begun, ended in spans) for at, _ in spans)


def _rehearse(made: Rack, guests: Sequence[Guest]) -> float:
    """Seconds of a migration beside its pages: both processes' start, connecting, the check at the end. All
    of these at once: on a machine of few CPUs they wait for each other."""
    with ThreadPoolExecutor(len(guests)) as pool:
        return median(pool.map(lambda at: _once(made, guests[at], FIRST_PORT + at), range(len(guests))))


def _once(made: Rack, guest: Guest, port: int) -> float:
    there = made.takers[port % len(made.takers)]
    address = f"{there.address}:{port}"
    beside = ["--insecure", "--json", "-", "--quiet"]
    python = [sys.executable, "-m"]
    begun = time.monotonic()
    words = ["pipeline.recv", "--listen", address, "--once", *beside]
    receiver = subprocess.Popen(
        [*there.prefix, *python, *words], stdout=subprocess.DEVNULL, start_new_session=True
    )
    words = ["pipeline.send", "--to", address, "--attach", guest.name, "--method", "zstd:1", *beside]
    sent = subprocess.run(
        [*guest.place.prefix, *python, *words], stdout=subprocess.PIPE, text=True, check=False
    )
    if sent.returncode:
        receiver.terminate()
    receiver.wait(30)
    took = time.monotonic() - begun
    if sent.returncode:
        raise RunFailed(f"the rehearsal of {guest.name} failed with exit code {sent.returncode}")
    return float(took - json.loads(sent.stdout)["time"]["total_ms"] / 1e3)


def _write(folder: Path, made: Rack, guests: Sequence[Guest], seen: Sequence[Seen], beside: float) -> Path:
    """plan.toml and here.toml."""
    cpus = usable_cpus()
    codecs = tuple(CodecSpeed(*speed) for speed in seen[0].speeds)
    profile = HostProfile("this host", "tools.fleet.rack", cpus, 0, codecs, None)
    save_text(profile_toml(profile), folder / "here.toml")
    lines = ['title = "A rack of namespaces"', "", "[limits]", 'converge = "none"']
    lines += [f"start_seconds = {beside * 0.7:.3f}", f"end_seconds = {beside * 0.3:.3f}"]
    carried = round(made.uplink_mbit * 1e6 / 8 * PAYLOAD_SHARE)
    lines += ["", "[[link]]", 'name = "uplink"', f'rate = "{carried}"']
    for place in (*made.sources, *made.takers):
        empty = place in made.sources
        lines += ["", "[[host]]", f'name = "{place.name}"', f"cpus = {cpus:g}", 'profile = "here.toml"']
        lines += ['links = ["uplink"]', "empty = true"] if empty else ["links = []", 'memory = "64G"']
        lines += [f'address = "{place.address}"', f'netns = "{place.netns}"']
    for guest, one in zip(guests, seen, strict=True):
        lines += ["", "[[vm]]", f'name = "{guest.name}"', f'host = "{guest.place.name}"']
        lines += [f'attach = "{guest.name}"', f'size = "{guest.size_mib}M"']
        lines += [f"zero_share = {one.zero_share:.4f}", f"ratio = {one.ratio:.4f}"]
        points = ", ".join(f'[{seconds:g}, "{size}"]' for seconds, size in one.curve)
        lines.append(f"dirty_curve = [{points}]")
    plan = folder / "plan.toml"
    save_text("\n".join(lines) + "\n", plan)
    return plan


COMMAND = Command(build_parser, run)
