"""`python -m qat.emulator`: run a command on an emulated QAT device, or the device alone.

python -m qat.emulator -- python -m pipeline.run --prealloc --method qatzip
python -m qat.emulator --instances 1 --fault hang:100 -- python -m pipeline.run --method qatzip
python -m qat.emulator                     prints what to set, and runs until Ctrl-C
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NoReturn, TypeVar

from qat.emulator.build import CannotBuild, library
from qat.emulator.device import MOST_PROCESSES, Device, DeviceSettings
from qat.emulator.faults import KINDS, parse_fault
from qat.emulator.model import CAPACITY_BYTES_PER_SECOND, ENGINES

T = TypeVar("T")

CANCELLED = 130
PROGRAM = "python -m qat.emulator"


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        said = " ".join(message.split())
        self.exit(2, f"error: {said.removeprefix('argument ')} (see --help)\n")


def build_parser(program: str, version: str) -> Parser:
    """The parser of the command line; `program` is what a user typed, `version` what it belongs to."""
    parser = Parser(
        prog=program,
        description="An emulated QAT device for development. Results that come from it are marked simulated.",
        epilog="Faults: "
        + "; ".join(f"{kind}: {what}" for kind, what in KINDS.items())
        + ". Exit codes: that of the command; 2 wrong usage, or this host cannot do it; "
        "130 cancelled by Ctrl-C.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--version", action="version", version=version or _installed())
    add(
        "--devices",
        metavar="N",
        type=_whole(1, 64),
        default=1,
        help="physical functions, 1 to 64 (default 1)",
    )
    add(
        "--instances",
        metavar="N",
        type=_whole(0, 4096),
        help=f"processes that may attach at once (default {MOST_PROCESSES} a device)",
    )
    add(
        "--capacity",
        metavar="BYTES",
        type=_whole(1, 10**12),
        default=CAPACITY_BYTES_PER_SECOND,
        help=f"uncompressed bytes per second of a device (default {CAPACITY_BYTES_PER_SECOND})",
    )
    add(
        "--engines",
        metavar="N",
        type=_whole(1, 64),
        default=ENGINES,
        help=f"engines of a device (default {ENGINES})",
    )
    add("--fault", type=_checked(parse_fault), metavar="KIND[:N]", help="what goes wrong (default nothing)")
    add("command", nargs=argparse.REMAINDER, help="after --: what to run on the device (default: wait)")
    return parser


def _installed() -> str:
    try:
        return f"ramferry {metadata.version('ramferry')}"
    except metadata.PackageNotFoundError:
        return "ramferry, not installed"


def _checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    def convert(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text}: {error}") from error

    return convert


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text) if text.lstrip("-").isdigit() else low - 1
        if not low <= value <= high:
            raise ValueError(f"must be {low} to {high}")
        return value

    return _checked(parse)


def main(arguments: list[str], program: str = PROGRAM, version: str = "") -> int:
    """Start the device, run the command (or wait), and return the command's exit code."""
    given = build_parser(program, version).parse_args(arguments)
    settings = DeviceSettings(
        devices=given.devices,
        instances=MOST_PROCESSES * given.devices if given.instances is None else given.instances,
        capacity=given.capacity,
        engines=given.engines,
    )
    if given.fault is not None:
        settings.fault = given.fault
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    ending = ending_signals()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, it would never be sent
    # Blocked, they wait for `sigwait`: a temporary library is removed however the emulator is ended.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*ending, signal.SIGCHLD})
    try:
        with library() as path:
            return emulate(settings, path, command, ending, mask)
    except CannotBuild as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def ending_signals() -> set[signal.Signals]:
    """The signals that end the emulator: not SIGHUP where it was ignored at the start, as under nohup."""
    hangup = set() if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else {signal.SIGHUP}
    return {signal.SIGINT, signal.SIGTERM, *hangup}


def emulate(
    settings: DeviceSettings,
    path: Path,
    command: list[str],
    ending: set[signal.Signals],
    mask: set[int | signal.Signals],
) -> int:
    """Serve as the device while `command` runs, or, without one, until a signal of `ending` comes.

    Those and SIGCHLD are blocked; the command is started with `mask`. Returns its exit code.
    """
    if signal.sigpending() & ending:
        return CANCELLED
    name = f"ramferry-qat-{os.getpid()}-{secrets.token_hex(4)}"
    device = Device(name, settings)
    environment = {"QATZIP_LIBRARY": str(path), "QAT_EMULATOR": name}
    process = None
    if command:
        print(
            f"emulating {settings.devices} QAT device(s): everything that follows is simulated",
            file=sys.stderr,
        )
        try:
            process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask),  # no thread runs yet
            )
        except OSError as error:
            print(f"error: {command[0]}: {error.strerror}", file=sys.stderr)
            return 2
    threading.Thread(target=device.serve, daemon=True).start()
    if process is None:
        for variable, value in environment.items():
            print(f"export {variable}={value}")
        sys.stdout.flush()
        number = signal.sigwait(ending)
        print(f"error: cancelled by {signal.Signals(number).name}", file=sys.stderr)
        return CANCELLED
    code = wait_for(process, ending)
    print(
        f"the emulated device answered {device.calls} calls: it did {device.requests} requests",
        file=sys.stderr,
    )
    return code if code >= 0 else 128 - code


def wait_for(process: subprocess.Popen[bytes], ending: set[signal.Signals]) -> int:
    """Wait, and pass signals on. Ctrl-C reaches the command without us: it is in our process group."""
    while (code := process.poll()) is None:
        number = signal.sigwait({*ending, signal.SIGCHLD})
        if number not in (signal.SIGINT, signal.SIGCHLD):
            process.send_signal(number)
    return code


def end_with(arguments: list[str], program: str = PROGRAM, version: str = "") -> NoReturn:
    """End this process with the exit code; engines may still be working for clients that are gone."""
    code = main(arguments, program, version)
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    end_with(sys.argv[1:])
