"""`python -m tools.qemu.live_guest`: a small live Linux under QEMU, kept running, to try a migration with.

It counts once a second on its console, and checks what it wrote. With `--incoming` a QEMU waits for it.
"""

from __future__ import annotations

import os
import sys
import time

from guestmem.ram import GuestRam
from pipeline.cli.main import Command, execute
from pipeline.cli.parser import SIZES, Parser
from pipeline.cli.values import Given
from pipeline.errors import UsageError
from pipeline.options import MAX_RAM_BYTES
from pipeline.processes.memory import check_memory
from pipeline.progress import open_log
from tools.qemu.guest.machine import MIN_GUEST_BYTES, WORKS, GuestMachine, GuestOptions

MAX_RATE_MIB = 4096


def build_parser(program: str) -> Parser:
    """All options, with units and defaults."""
    parser = Parser(program, "Keep a small live Linux running under QEMU, until Ctrl-C.", 1, epilog=SIZES)
    add = parser.add_argument
    add("--qmp", metavar="SOCKET", help="where QEMU has a monitor (QMP)")
    add("--console", metavar="FILE", help="where the guest's console goes")
    add(
        "--incoming", action="store_true", default=None, help="a QEMU that waits for the guest, not the guest"
    )
    add("--size", metavar="SIZE", help="the guest's RAM (default 256M)")
    add("--work", metavar="WORK", help=f"{' or '.join(WORKS)} (default writer)")
    add("--writer-size", metavar="MIB", help="MiB that its program writes to (default 64)")
    add("--rate", metavar="MIB", help="MiB it writes a second (default 20)")
    add("--quiet", action="store_true", default=None, help="say nothing meanwhile")
    return parser


def run(given: Given, command: list[str]) -> int:
    """Run it, and return the exit code."""
    work = given.choice("work", WORKS, "writer")
    size = given.size("size", MIN_GUEST_BYTES[work], MAX_RAM_BYTES, 256 << 20, multiple_of=2 << 20)
    options = GuestOptions(
        size,
        work,
        given.whole("writer_size", 1, size >> 20, 64),
        given.whole("rate", 0, MAX_RATE_MIB, 20),
    )
    qmp, console = given.text("qmp"), given.new_file("console")
    if qmp is None or console is None or console == "-":
        raise UsageError("--qmp SOCKET and --console FILE are needed")
    check_memory(size, 1, 0, 0)
    progress = open_log(given.flag("quiet"))
    ram = GuestRam.create(size, "live-guest")
    machine = GuestMachine(ram, options, incoming=given.flag("incoming"), monitor=qmp, console=console)
    try:
        progress.say(f"QEMU {machine.qmp.version} runs, pid {machine.process.pid}")
        while machine.process.poll() is None:
            time.sleep(0.2)
        return 0
    finally:
        machine.stop()
        os.close(ram.fd)


COMMAND = Command(build_parser, run)

if __name__ == "__main__":
    sys.exit(execute("tools.qemu.live_guest", sys.argv[1:]))
