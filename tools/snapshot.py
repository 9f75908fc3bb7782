"""`python -m tools.snapshot`: the RAM of a running VM into a file, with a stop as short as QEMU offers.

QEMU migrates into the file with the capability mapped-ram, while the guest runs: each page has its place
there, so that what is written meanwhile is written over. The guest stands still for the last of it, and runs
on (QEMU docs/devel/migration/mapped-ram.rst). `--image` reads the file.
"""

from __future__ import annotations

if __name__ == "__main__":  # in front of imports that take time, in which a signal may come
    import sys

    from pipeline.cli.main import execute

    sys.exit(execute("tools.snapshot", sys.argv[1:]))

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.cli.main import Command, show
from pipeline.cli.parser import Parser
from pipeline.cli.result import add_output_arguments
from pipeline.cli.values import Given, check_target
from pipeline.errors import HostError, RunFailed, UsageError
from pipeline.progress import Progress, open_progress
from pipeline.qemu.connect import monitor_at, refuse_moving
from pipeline.qemu.monitor import ENDED, Monitor, MonitorError, seconds_of
from pipeline.report.files import save_json

SCHEMA_VERSION = 1
CAPABILITIES = {
    "mapped-ram": True,
    "events": True,
    "multifd": False,
    "return-path": False,
    "postcopy-ram": False,
    "x-ignore-shared": False,
    "background-snapshot": False,
    "xbzrle": False,
    "auto-converge": False,
}
FIRST_LIMIT_MS, LIMIT_FACTOR, PATIENT_ROUNDS = 30, 3, 6
"""The stop that is asked for; more of it after so many rounds that did not get there."""

NO_LIMIT = 1 << 40
LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Snapshot:
    """What it was, and what it cost the guest: for how long it stood still."""

    output: str
    ram_bytes: int
    file_bytes: int
    total_ms: float
    stopped_ms: float
    rounds: int


def build_parser(program: str) -> Parser:
    """All options."""
    parser = Parser(program, "Write the RAM of a running VM to a file that --image reads.", 1)
    add = parser.add_argument
    add("--qmp", metavar="SOCKET", help="the VM's monitor (QMP), which no other client holds")
    add("--output", metavar="FILE", help="a new file; QEMU writes it, so it must be let to")
    add_output_arguments(parser)
    return parser


def take(path: str, output: Path, progress: Progress) -> Snapshot:
    """Raises FerryError; the guest runs on as it ran before, whatever happens."""
    output = output.absolute()
    with monitor_at(path) as monitor:
        try:
            refuse_moving(monitor, f"--qmp {path}", "wait for its end")
            was_running = bool(monitor.run("query-status")["running"])
            _create(output)
            try:
                with _settings(monitor), _running_on(monitor, was_running=was_running):
                    return _migrate(monitor, output, progress, was_running=was_running)
            except BaseException:
                output.unlink(missing_ok=True)
                raise
        except MonitorError as error:
            raise RunFailed(f"--qmp {path}: QEMU: {error}") from error


def _create(output: Path) -> None:
    """Empty, and this user's alone, before QEMU writes memory to it."""
    try:
        os.close(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise HostError(f"--output {output}: {error.strerror or error}") from error


@contextlib.contextmanager
def _settings(monitor: Monitor) -> Iterator[None]:
    """Capabilities and parameters for it, and those of before when it is done."""
    had = monitor.capabilities()
    if "mapped-ram" not in had:
        raise HostError(f"QEMU {monitor.version} has no mapped-ram: 9.0 has")
    wanted = {name: state for name, state in CAPABILITIES.items() if name in had and had[name] != state}
    parameters = monitor.run("query-migrate-parameters")
    before = {name: parameters[name] for name in ("max-bandwidth", "downtime-limit")}
    try:
        monitor.set_capabilities(wanted)
        monitor.run("migrate-set-parameters", max_bandwidth=NO_LIMIT, downtime_limit=FIRST_LIMIT_MS)
        yield
    finally:
        with contextlib.suppress(MonitorError):
            monitor.set_capabilities({name: had[name] for name in wanted})
            monitor.run("migrate-set-parameters", **before)


@contextlib.contextmanager
def _running_on(monitor: Monitor, *, was_running: bool) -> Iterator[None]:
    """Whatever happens, the migration is over afterwards, and the guest does what it did before."""
    try:
        yield
    finally:
        with contextlib.suppress(MonitorError):
            if monitor.run("query-migrate").get("status") not in (*ENDED, None):
                monitor.run("migrate_cancel")
                monitor.wait_for_migration(10.0)
        with contextlib.suppress(MonitorError):
            if was_running and not monitor.run("query-status")["running"]:
                monitor.run("cont")


def _migrate(monitor: Monitor, output: Path, progress: Progress, *, was_running: bool) -> Snapshot:
    monitor.events()
    began = time.monotonic()
    monitor.run("migrate", uri=f"file:{output}")
    limit, patience = FIRST_LIMIT_MS, PATIENT_ROUNDS
    at: dict[str, float] = {}
    while True:
        found = monitor.run("query-migrate")
        _note(monitor, at)
        if found["status"] in ENDED:
            break
        rounds = found.get("ram", {}).get("dirty-sync-count", 0)
        if rounds > patience:
            limit, patience = limit * LIMIT_FACTOR, rounds + PATIENT_ROUNDS
            progress.say(f"the guest writes much: {limit} ms of standing still are allowed now")
            monitor.run("migrate-set-parameters", downtime_limit=limit)
        time.sleep(LOOK_SECONDS)
    if found["status"] != "completed":
        why = found.get("error-desc", found["status"])
        raise RunFailed(f"QEMU did not write {output} ({why}); where it runs as another user, let it")
    if was_running:
        monitor.run("cont")
        _note(monitor, at)
    return Snapshot(
        str(output),
        int(found["ram"]["total"]),
        output.stat().st_blocks * 512,
        (time.monotonic() - began) * 1e3,
        (at.get("RESUME", 0.0) - at.get("STOP", 0.0)) * 1e3 if "RESUME" in at and "STOP" in at else 0.0,
        int(found["ram"].get("dirty-sync-count", 0)),
    )


def _note(monitor: Monitor, at: dict[str, float]) -> None:
    """When the guest stopped, and when it ran again, by QEMU's own time."""
    for event in monitor.events():
        at[event["event"]] = seconds_of(event)


def run(given: Given, command: list[str]) -> int:
    """Take it, print, and return the exit code."""
    qmp, output = given.text("qmp"), given.text("output")
    if qmp is None or output is None:
        raise UsageError("--qmp SOCKET and --output FILE are needed")
    check_target("--output", Path(output))
    json_target = given.new_file("json")
    progress = open_progress(given.flag("quiet"))
    try:
        found = take(qmp, Path(output), progress)
    finally:
        progress.close()
    document: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "status": "completed", "error": None}
    if json_target is not None:
        save_json({**document, **asdict(found), "command": command}, json_target)
    if json_target != "-":
        show(
            f"{found.output}: {found.ram_bytes >> 20} MiB of RAM in {found.file_bytes >> 20} MiB on disk, "
            f"{found.total_ms / 1e3:.2f} s, {found.rounds} rounds; the guest stood still for "
            f"{found.stopped_ms:.0f} ms"
        )
    return 0


COMMAND = Command(build_parser, run)
