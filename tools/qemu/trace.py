"""`python -m tools.qemu.trace`: record how a real guest's RAM changes, for `--preset trace:FILE`.

A small Linux runs under QEMU (tools/get_guest.sh): it compresses files, makes and removes others, and writes
memory. It is stopped again and again, and each time what changed since the last stop is kept.
"""

from __future__ import annotations

if __name__ == "__main__":  # in front of imports that take time, in which a signal may come
    import sys

    from pipeline.cli.main import execute

    sys.exit(execute("tools.qemu.trace", sys.argv[1:]))

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam
from guestmem.trace import Trace
from guestmem.units import show_size
from pipeline.cli.main import Command, show
from pipeline.cli.parser import SIZES, Parser
from pipeline.cli.values import Given
from pipeline.errors import HostError
from pipeline.processes.memory import check_memory
from pipeline.progress import Progress, open_progress
from tools.qemu.guest.machine import MIN_GUEST_BYTES, GuestMachine, GuestOptions, live_guest

DEFAULT_BYTES, MAX_BYTES = 512 << 20, 64 << 30
DEFAULT_SETTLE_SECONDS = 20.0
STEP_PAGES = 1 << 16


@dataclass(frozen=True)
class Request:
    """A checked command line."""

    output: Path
    size_bytes: int
    stops: int
    interval_seconds: float
    settle_seconds: float
    writer_rate_mib: int
    quiet: bool


def build_parser(program: str) -> Parser:
    """All options, with units and defaults."""
    parser = Parser(
        program, "Record how the RAM of a real Linux guest under QEMU changes.", *(1, 3), epilog=SIZES
    )
    add = parser.add_argument
    add("--output", metavar="FILE", required=True, help="the trace; must not exist")
    add("--size", metavar="SIZE", help=f"RAM of the guest, bytes (default {show_size(DEFAULT_BYTES)})")
    add("--stops", metavar="N", help="stops after the first, 1 to 1000 (default 20)")
    add("--interval", metavar="SECONDS", help="that it runs from stop to stop (default 0.5)")
    add("--settle", metavar="SECONDS", help="that it runs before the first stop (default 20)")
    add(
        "--writer-rate", metavar="MIB", help="MiB a second that its writer writes beside its work (default 5)"
    )
    add("--quiet", action="store_true", default=None, help="no progress (default off)")
    return parser


def read(given: Given) -> Request:
    """Raises UsageError."""
    output = given.new_file("output")
    assert output is not None
    return Request(
        Path(output),
        given.size("size", MIN_GUEST_BYTES["busy"], MAX_BYTES, DEFAULT_BYTES, multiple_of=1 << 20),
        given.whole("stops", 1, 1000, 20),
        given.above_zero("interval", 60.0, "s", 0.5),
        given.above_zero("settle", 600.0, "s", DEFAULT_SETTLE_SECONDS),
        given.whole("writer_rate", 1, 1000, 5),
        given.flag("quiet"),
    )


def record(request: Request, progress: Progress) -> Trace:
    """Run the guest, and stop it again and again. Raises HostError, RunFailed."""
    check_memory(request.size_bytes, 2, 0, 1)
    ram = GuestRam.create(request.size_bytes, "traced")
    options = GuestOptions(
        request.size_bytes, "busy", writer_mib=request.size_bytes >> 24, rate_mib=request.writer_rate_mib
    )
    with live_guest(options, ram) as machine:
        progress.say(f"the guest works for {request.settle_seconds:g} s")
        time.sleep(request.settle_seconds)
        return _record(machine, ram, request, progress)


def _record(machine: GuestMachine, ram: GuestRam, request: Request, progress: Progress) -> Trace:
    machine.qmp.run("stop")
    last = np.array(ram.words)
    image_pages = np.flatnonzero(last.any(axis=1)).astype(np.uint32)
    image_words = last[image_pages]
    seconds, pages, words = [], [], []
    for number in range(1, request.stops + 1):
        began = time.monotonic()
        machine.qmp.run("cont")
        time.sleep(request.interval_seconds)
        machine.qmp.run("stop")
        seconds.append(time.monotonic() - began)
        machine.check_alive()
        changed = _changed(ram, last)
        last[changed] = ram.words[changed]
        pages.append(changed)
        words.append(last[changed])
        progress.say(f"stop {number} of {request.stops}: {len(changed)} pages had changed")
    counts = np.array([len(changed) for changed in pages], np.int64)
    every = np.concatenate(pages), np.concatenate(words)
    return Trace(ram.pages, image_pages, image_words, np.array(seconds), counts, *every)


def _changed(ram: GuestRam, last: np.ndarray[tuple[int, ...], np.dtype[np.uint64]]) -> np.ndarray:
    """Pages that are not as they were, ascending."""
    found = []
    for start in range(0, ram.pages, STEP_PAGES):
        part = slice(start, start + STEP_PAGES)
        found.append(start + np.flatnonzero((ram.words[part] != last[part]).any(axis=1)))
    return np.concatenate(found).astype(np.uint32)


def run(given: Given, command: list[str]) -> int:
    """Record, save, say what it is, and return the exit code."""
    request = read(given)
    progress = open_progress(request.quiet)
    try:
        trace = record(request, progress)
    finally:
        progress.close()
    try:
        trace.save(request.output)
    except OSError as error:
        raise HostError(f"--output {request.output}: {error.strerror}") from error
    rate = trace.counts.sum() * PAGE_BYTES / trace.seconds.sum()
    show(
        f"{request.output}: {len(trace.counts)} intervals, {trace.seconds.sum():.1f} s; "
        f"{show_size(int(rate))} of pages changed a second; {show_size(request.output.stat().st_size)}"
    )
    return 0


COMMAND = Command(build_parser, run)
