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
from typing import TypeVar

from qat.emulator.build import CannotBuild, library
from qat.emulator.device import MOST_PROCESSES, Device, DeviceSettings
from qat.emulator.faults import KINDS, parse_fault
from qat.emulator.model import CAPACITY_BYTES_PER_SECOND, ENGINES

T = TypeVar("T")
ENDING = {signal.SIGINT, signal.SIGTERM}


def build_parser() -> argparse.ArgumentParser:
    """All options, with units and defaults."""
    parser = argparse.ArgumentParser(
        prog="python -m qat.emulator",
        description="A QAT device to develop against. Nothing is hardware: results are marked simulated.",
        epilog="Faults: " + "; ".join(f"{kind}: {what}" for kind, what in KINDS.items()),
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--devices", type=_whole(1, 64), default=1, help="physical functions, 1 to 64 (default 1)")
    add(
        "--instances",
        type=_whole(0, 4096),
        help=f"processes that may attach at once (default {MOST_PROCESSES} a device)",
    )
    add(
        "--capacity",
        type=_whole(1, 10**12),
        default=CAPACITY_BYTES_PER_SECOND,
        help=f"uncompressed bytes per second of a device (default {CAPACITY_BYTES_PER_SECOND})",
    )
    add("--engines", type=_whole(1, 64), default=ENGINES, help=f"engines of a device (default {ENGINES})")
    add("--fault", type=_checked(parse_fault), metavar="KIND[:N]", help="what goes wrong (default nothing)")
    add("command", nargs=argparse.REMAINDER, help="after --: what to run on the device (default: wait)")
    return parser


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


def main(arguments: list[str]) -> int:
    """Start the device, run the command (or wait), and return the command's exit code."""
    given = build_parser().parse_args(arguments)
    settings = DeviceSettings(
        devices=given.devices,
        instances=MOST_PROCESSES * given.devices if given.instances is None else given.instances,
        capacity=given.capacity,
        engines=given.engines,
    )
    if given.fault is not None:
        settings.fault = given.fault
    try:
        path = library()
    except CannotBuild as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not command:
        # Before there are threads that would get them instead.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    name = f"ramferry-qat-{os.getpid()}-{secrets.token_hex(4)}"
    device = Device(name, settings)
    threading.Thread(target=device.serve, daemon=True).start()
    environment = {"QATZIP_LIBRARY": str(path), "QAT_EMULATOR": name}
    if not command:
        return _wait(environment)
    print(f"emulating {given.devices} QAT device(s): all that follows is simulated", file=sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = subprocess.run(command, env={**os.environ, **environment}, check=False).returncode
    except OSError as error:
        print(f"error: {command[0]}: {error.strerror}", file=sys.stderr)
        return 2
    print(f"the emulated device answered {device.requests} requests", file=sys.stderr)
    return code if code >= 0 else 128 - code


def _wait(environment: dict[str, str]) -> int:
    for name, value in environment.items():
        print(f"export {name}={value}")
    sys.stdout.flush()
    signal.sigwait(ENDING)
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # engines may still be at work for clients that are gone
