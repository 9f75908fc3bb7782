"""The command `forecast`: a look at a guest or a VM, the forecast, the advice; or the score of many."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from guestmem.guest import GuestSpec
from guestmem.page import PAGE_BYTES
from pipeline.cli import guest as guest_cli
from pipeline.cli.main import Command, show
from pipeline.cli.parser import SIZES, Parser
from pipeline.cli.result import add_output_arguments
from pipeline.cli.values import Given
from pipeline.codecs import METHODS
from pipeline.errors import UsageError
from pipeline.forecast.bands import best
from pipeline.forecast.look import look as look_at
from pipeline.forecast.sample import candidates
from pipeline.forecast.score import NAMES, errors_of
from pipeline.forecast.situation import Guest, Host, Plan
from pipeline.options import MAX_DOWNTIME_LIMIT_MS, MAX_WORKERS, GuestOptions
from pipeline.policy import PolicySettings
from pipeline.processes.cgroup import usable_cpus
from pipeline.processes.memory import check_memory
from pipeline.processes.signals import signals_cancel
from pipeline.processes.supervisor import Supervisor
from pipeline.progress import Progress, Stage, open_progress
from pipeline.report.files import save_json
from pipeline.source.guest_client import GuestClient
from tools.forecast import live_vm
from tools.forecast.advice import Question, answers, break_evens, by_link, commands, recommendation, render
from tools.forecast.errors_table import errors_table
from tools.forecast.host import HOST_OPTIONS, OtherHost, add_host_arguments, read_host
from tools.forecast.published.report import published

SCHEMA_VERSION = 1
METHODS_ASKED: tuple[tuple[str, int | None], ...] = (
    *(("none", None), ("lz4", 1), ("isal", 1)),
    *(("zstd", level) for level in (1, 3, 5)),
)
DEFAULT_CHANNELS = (1, 2, 4)
SOURCES = "--qmp SOCKET, --attach NAME, --score DIR, --published, or a guest to make (--image, --size, ...)"


@dataclass(frozen=True)
class Request:
    """A checked command line. One of `qmp`, `attach`, `score`, `published` and `guest` is meant."""

    qmp: str | None
    attach: str | None
    guest: GuestOptions | None
    score: Path | None
    published: bool
    plan: Plan
    channels: tuple[int, ...]
    other_host: OtherHost
    json: str | None
    quiet: bool


def build_parser(program: str) -> Parser:
    """All options, with units and defaults."""
    parser = Parser(
        program,
        "Look at a VM or a guest for some seconds, and say what its migration will take by every method.",
        *(1, 3),
        epilog=f"What to look at: {SOURCES}. {SIZES}",
    )
    add = parser.add_argument_group("what to look at").add_argument
    add("--qmp", metavar="SOCKET", help="a VM's monitor (QMP), which no other client holds")
    add("--attach", metavar="NAME", help="the guest that tools.dirtyrate --create NAME keeps running")
    add("--score", metavar="DIR", help="no look: how good the forecasts in these result documents were")
    add(
        *("--published",),
        action="store_const",
        const=True,
        help="no look: rows that others published of QEMU's migrations, beside what the model says of them",
    )
    guest_cli.add_guest_arguments(parser)
    add_host_arguments(parser)
    add = parser.add_argument_group("how it is to be sent").add_argument
    add(
        "--bandwidth", metavar="RATE", help="what the link carries, bytes a second; 0 is no limit (default 0)"
    )
    add("--channels", metavar="LIST", help="numbers of channels, with commas (default 1,2,4)")
    add("--downtime-limit", metavar="MS", help="milliseconds that the guest may stand still (default 300)")
    add_output_arguments(parser)
    return parser


def read(given: Given) -> Request:
    """Raises UsageError."""
    attach = guest_cli.read_attach(given)
    qmp, score, published = given.text("qmp"), given.text("score"), given.flag("published")
    sources = {"qmp": qmp, "attach": attach, "score": score, "published": published}
    meant = [f"--{name}" for name, value in sources.items() if value]
    if len(meant) > 1:
        raise UsageError(f"{' and '.join(meant)}: name one of {SOURCES}")
    if meant:
        given.refuse(guest_cli.GUEST_OPTIONS, f"makes a guest; leave this out, or {meant[0]}")
    if score is not None or published:
        options = ("bandwidth", "channels", "downtime_limit", *HOST_OPTIONS)
        given.refuse(options, f"belongs to a look; leave out {meant[0]}")
    if score is not None and not Path(score).is_dir():
        raise UsageError(f"--score {score}: no such folder")
    limit = given.above_zero("downtime_limit", MAX_DOWNTIME_LIMIT_MS, "ms", 300.0)
    channels = _channels(given.text("channels"))
    plan = Plan(channels[0], channels[0], given.rate("bandwidth"), PolicySettings(downtime_limit_ms=limit))
    own = None if meant else guest_cli.read_guest(given)
    return Request(
        *(qmp, attach, own, None if score is None else Path(score), published, plan, channels),
        *(read_host(given), given.new_file("json"), given.flag("quiet")),
    )


def _channels(text: str | None) -> tuple[int, ...]:
    if text is None:
        return DEFAULT_CHANNELS
    try:
        found = tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError as error:
        raise UsageError(f"--channels {text}: must be numbers with commas between") from error
    if not found or not all(1 <= number <= MAX_WORKERS for number in found):
        raise UsageError(f"--channels {text}: must be 1 to {MAX_WORKERS}")
    return found


@dataclass(frozen=True)
class _Seen:
    guest: Guest
    whole: Any
    written: Any
    facts: dict[str, Any]
    gauge: float | None = None
    notes: tuple[str, ...] = ()


def _look(request: Request, progress: Progress) -> _Seen:
    if request.qmp is not None:
        progress.say("looking at the VM for some 7 s")
        vm = live_vm.look(request.qmp)
        content = (f"without content: {vm.why_no_content}",) if vm.why_no_content else ()
        facts = {
            "look_seconds": vm.took_seconds,
            "cost": asdict(vm.cost),
            "capabilities": vm.capabilities,
            "parameters": vm.parameters,
        }
        return _Seen(vm.guest, vm.whole, vm.written, facts, None, (*vm.notes, *content))
    with Supervisor() as supervisor, signals_cancel(supervisor):
        if request.attach is not None:
            link = GuestClient.attach(supervisor, request.attach, "auto")
        else:
            assert request.guest is not None
            check_memory(request.guest.size_bytes, 1, 0, 1, request.guest.advice)
            progress.say(f"filling {request.guest.size_bytes >> 20} MiB of guest RAM")
            spec = GuestSpec(
                *(request.guest.size_bytes, request.guest.content(), request.guest.workload), huge_pages=True
            )
            told = functools.partial(progress.reach, Stage.FILLING)
            link = GuestClient.start(supervisor, spec, "auto", told)
            link.order("run")
        progress.say("looking at the guest for 4.5 s")
        seen = look_at(link.source, link.log, link.pid, link.rest)
    return _Seen(seen.guest, seen.whole, seen.written, {"look_seconds": seen.took_seconds}, seen.gauge)


def _forecast(request: Request, progress: Progress) -> tuple[dict[str, Any], str]:
    seen = _look(request, progress)
    cpus = usable_cpus()
    asked = request.other_host.methods(METHODS_ASKED)
    methods = [(name, level) for name, level in asked if not METHODS[name].unavailable()]
    if seen.notes and not len(seen.whole):
        methods = [("none", None)]
    progress.say("compressing what was seen by every method")
    threads = max(1, min(max(request.channels), int(cpus)))
    measured = candidates(methods, seen.whole, seen.written, threads, seen.gauge)
    zlib = functools.partial(candidates, [("zlib", 1)], seen.whole, seen.written, threads, seen.gauge)
    other = request.other_host
    saved = other.save(measured, cpus)
    host, plan = other.host(Host(cpus, cpus, one_host=request.qmp is None)), other.plan(request.plan)
    question = Question(seen.guest, tuple(other.candidates(measured, zlib)), host, plan, request.channels)
    found = answers(question)
    chosen = best(found)
    links = by_link(question)
    document = {
        "schema_version": SCHEMA_VERSION,
        "status": "completed",
        "error": None,
        "guest": {
            "ram_bytes": seen.guest.ram_pages * PAGE_BYTES,
            "zero_share": seen.guest.zero_share,
            "sync_ms": seen.guest.sync_ms,
            "curve": {"seconds": seen.guest.curve.seconds, "pages": seen.guest.curve.pages},
            **seen.facts,
        },
        "notes": list(seen.notes),
        "host_profile": other.record(),
        "forecasts": [one.record() for one in found],
        "recommended": chosen.record(),
        "by_link": {str(link): [one.record() for one in row] for link, row in links.items()},
    }
    text = "\n\n".join(
        [
            render(found),
            *(f"note: {note}" for note in (*seen.notes, *other.notes(), *saved)),
            _cost(seen),
            recommendation(found),
            break_evens(links),
            commands(chosen, live_vm=request.qmp is not None),
        ]
    )
    return document, text


def _cost(seen: _Seen) -> str:
    took = f"The look took {seen.facts['look_seconds']:.1f} s"
    cost = seen.facts.get("cost")
    if cost is None:
        return f"{took}."
    return (
        f"{took}; {cost['calls']} reads of memory held QEMU's lock for {cost['total_ms']:.0f} ms in all, "
        f"{cost['longest_ms']:.1f} ms at most."
    )


def _score(folder: Path) -> tuple[dict[str, Any], str]:
    results, unread = [], 0
    for path in sorted(folder.glob("**/*.json")):
        try:
            found = json.loads(path.read_text())
            runs = found.get("runs", [found])
            results += [one for one in runs if one.get("score")]
        except (ValueError, AttributeError, OSError):
            unread += 1
    if not results:
        raise UsageError(f"--score {folder}: no result with a score; runs with --forecast have one")
    errors, brier, always = errors_of(results)
    worst = sorted(
        (one for one in results if one["score"].get("total_ms")),
        key=lambda one: -abs(one["score"]["total_ms"]["error"]),
    )[:5]
    lines = [errors_table(errors), f"Chance to converge: Brier score {brier:.3f}; always yes {always:.3f}."]
    if unread:
        lines.append(f"{unread} files were no results.")
    lines += ["Worst by total time:", *(f"- {_why(one)}" for one in worst)]
    document = {
        "schema_version": SCHEMA_VERSION,
        "status": "completed",
        "error": None,
        "results": len(results),
        "errors": {name: asdict(one) for name, one in errors.items()},
        "brier": brier,
        "brier_always_yes": always,
    }
    return document, "\n".join(lines)


def _why(result: dict[str, Any]) -> str:
    """Where a forecast went wrong: what else was off."""
    score = result["score"]
    parts = [
        f"{NAMES[name]} {score[name]['error']:+.0%}"
        for name in NAMES
        if score.get(name) and score[name]["error"] is not None
    ]
    options = result["options"]
    level = "" if options.get("level") is None else f" {options['level']}"
    return f"{options['method']}{level}, {options['channels']} channels: " + ", ".join(parts)


def _answer(request: Request, progress: Progress) -> tuple[dict[str, Any], str]:
    if request.score is not None:
        return _score(request.score)
    if request.published:
        found, text = published()
        return {"schema_version": SCHEMA_VERSION, "status": "completed", "error": None, **found}, text
    return _forecast(request, progress)


def run(given: Given, command: list[str]) -> int:
    """Look, forecast, print, and return the exit code."""
    request = read(given)
    progress = open_progress(request.quiet)
    try:
        document, text = _answer(request, progress)
    finally:
        progress.close()
    if request.json is not None:
        save_json({**document, "command": command}, request.json)
    if request.json != "-":
        show(text)
    return 0


COMMAND = Command(build_parser, run)
