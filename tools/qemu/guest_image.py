"""`python -m tools.qemu.guest_image`: the RAM of a real Linux guest as a file, for `--image`.

A small Linux is booted under QEMU (`tools/get_guest.sh`), works for a while (files are packed, sorted,
searched, counted; a program writes text), is stopped, and its RAM is kept as it lies.
"""

from __future__ import annotations

import sys
import time

from guestmem.ram import GuestRam
from guestmem.units import show_size
from pipeline.cli.main import Command, execute, show
from pipeline.cli.parser import SIZES, Parser
from pipeline.cli.values import Given
from pipeline.destination.output import Output
from pipeline.errors import RunFailed, UsageError
from pipeline.options import MAX_RAM_BYTES
from pipeline.processes.memory import check_memory
from pipeline.progress import Progress, open_log
from pipeline.qemu.monitor import MonitorError
from tools.qemu.guest.machine import MIN_GUEST_BYTES, WORKS, GuestOptions, live_guest

DEFAULT_SECONDS = 30.0
MAX_SECONDS = 86400.0


def build_parser(program: str) -> Parser:
    """All options, with units and defaults."""
    parser = Parser(program, "Boot a small Linux, let it work, keep its RAM as a file.", 1, epilog=SIZES)
    add = parser.add_argument
    add("--size", metavar="SIZE", help="the guest's RAM, 256M or more, of a writer 160M (default 1G)")
    add("--work", metavar="WORK", help=f"{' or '.join(WORKS)} (default busy)")
    add("--seconds", metavar="SECONDS", help=f"how long it works (default {DEFAULT_SECONDS:.0f})")
    add("--output", metavar="FILE", help="the image; a file that is there is replaced")
    add("--quiet", action="store_true", default=None, help="say nothing meanwhile")
    return parser


def run(given: Given, command: list[str]) -> int:
    """Make the image, say where it is, and return the exit code."""
    work = given.choice("work", WORKS, "busy")
    size = given.size("size", MIN_GUEST_BYTES[work], MAX_RAM_BYTES, 1 << 30, multiple_of=2 << 20)
    seconds = given.above_zero("seconds", MAX_SECONDS, "seconds", DEFAULT_SECONDS)
    path = given.text("output")
    if path is None or path == "-":
        raise UsageError("--output FILE is needed: the image's name, a file")
    output = Output(path)
    output.check()
    check_memory(size, 1, 0, 0)
    kept = output.reserve(size)
    progress = open_log(given.flag("quiet"))
    try:
        progress.say("booting a guest")
        _work(GuestOptions(size, work), kept.ram, seconds, progress)
        where = kept.commit()
    except BaseException:
        kept.give_up()
        raise
    show(f"the RAM of a guest after {seconds:g} s of work ({work}), {show_size(size)}: {where}")
    return 0


def _work(options: GuestOptions, ram: GuestRam, seconds: float, progress: Progress) -> None:
    with live_guest(options, ram) as machine:
        progress.say(f"it works, for {seconds:g} s")
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            machine.check_alive()
            time.sleep(min(left, 0.5))
        told = machine.told()
        if told is not None and told.bad:
            raise RunFailed(f"the guest says that {told.bad} of its pages are wrong")
        try:
            machine.qmp.run("stop")
        except MonitorError as error:
            raise RunFailed(f"QEMU: {error}") from error


COMMAND = Command(build_parser, run)

if __name__ == "__main__":
    sys.exit(execute("tools.qemu.guest_image", sys.argv[1:]))
