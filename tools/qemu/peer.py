"""`python -m tools.qemu.peer`: the same RAM image through a real QEMU multifd migration, here.

Two QEMUs with a paused TCG guest each, whose RAM is a `memory-backend-file` over a segment of
ours (shared, and without a name); the image is put into the source's, `migrate` goes over
loopback, and `query-migrate` and `/proc/PID/stat` give the row that a run of ours gives. At the
end the destination's RAM is compared with the image, byte for byte.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass

from guestmem.content import Content
from guestmem.prefault import populate
from guestmem.ram import MIN_RAM_BYTES, GuestRam
from pipeline.cli.guest import add_ram_arguments, read_ram
from pipeline.cli.main import Command, execute, show
from pipeline.cli.parser import SIZES, Parser
from pipeline.cli.values import Given
from pipeline.destination.verification import first_difference
from pipeline.errors import HostError, RunFailed
from pipeline.options import DEFAULT_CHANNELS, MAX_WORKERS, RamOptions
from pipeline.processes.command import start_command
from pipeline.processes.memory import check_memory
from pipeline.processes.usage import cpu_seconds_of
from pipeline.qemu.monitor import Monitor, MonitorError, why_not
from pipeline.report.files import save_json
from qat.scripts import shipped_script

BINARY = "qemu-system-x86_64"
METHODS = ("none", "zlib", "zstd", "qatzip")
LEVELS = {"zlib": range(10), "zstd": range(21), "qatzip": range(1, 10)}
TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True)
class PeerOptions:
    """What QEMU is asked to do. `max_bandwidth` in bytes per second, 0 is no limit."""

    method: str
    level: int
    channels: int
    prealloc: bool
    max_bandwidth: int = 0


@dataclass(frozen=True)
class PeerRow:
    """What QEMU did, in the words of our own result.

    `wire_bytes` is `ram.transferred`, `guest_bytes` `ram.normal-bytes`. CPU seconds are user and
    system time of the whole QEMU process from before `migrate` until the end, in the kernel's
    10 ms steps. `total_ms` and `downtime_ms` are QEMU's own, set-up taken off.
    """

    version: str
    total_ms: float
    downtime_ms: float
    guest_bytes: int
    wire_bytes: int
    send_cpu_seconds: float
    recv_cpu_seconds: float
    verified: bool

    @property
    def guest_megabytes_per_second(self) -> float:
        """Guest megabytes (10^6 bytes of normal pages) moved per second."""
        return self.guest_bytes / 1e3 / self.total_ms

    @property
    def compression_ratio(self) -> float:
        """Bytes of normal pages over wire bytes."""
        return self.guest_bytes / self.wire_bytes


def find_qemu() -> str:
    """The path of QEMU's binary. Raises HostError when QEMU or the package qemu.qmp is missing."""
    found = shutil.which(BINARY)
    if found is None:
        script = shipped_script("get_qemu.sh")
        raise HostError(f"{BINARY} is not here: run {script} (Debian), or install QEMU 9.0 or later")
    if why := why_not():
        raise HostError(why)
    return found


class Machine:
    """One QEMU with a paused guest over a segment of ours."""

    def __init__(self, binary: str, ram: GuestRam, options: PeerOptions, incoming: bool) -> None:
        ours, theirs = socket.socketpair()
        backend = (
            f"memory-backend-file,id=ram,share=on,size={ram.size_bytes},"
            f"mem-path=/proc/self/fd/{ram.fd},prealloc={'on' if options.prealloc else 'off'}"
        )
        command = [
            *(binary, "-S", "-nodefaults", "-no-user-config", "-display", "none"),
            *("-machine", "q35,accel=tcg,memory-backend=ram", "-m", f"{ram.size_bytes}B"),
            *("-object", backend),
            *("-chardev", f"socket,id=monitor,fd={theirs.fileno()}", "-mon", "monitor,mode=control"),
            *(("-incoming", "defer") if incoming else ()),
        ]
        self._process = start_command(
            command,
            pass_fds=(ram.fd, theirs.fileno()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        try:
            self.qmp = Monitor(ours)
        except MonitorError as error:
            raise HostError(f"{BINARY}: {self._last_words() or error}") from error
        self.version = self.qmp.version
        try:
            self._configure(options)
        except MonitorError as error:
            self.qmp.close()
            raise HostError(f"{BINARY}: {self._last_words() or error}") from error
        except HostError:
            self.stop()
            raise

    def _configure(self, options: PeerOptions) -> None:
        self.qmp.set_capabilities({"events": True, "multifd": True})
        settings = {
            "multifd_channels": options.channels,
            "multifd_compression": options.method,
            "max_bandwidth": options.max_bandwidth,
        }
        if options.method != "none":
            settings[f"multifd_{options.method}_level"] = options.level
        try:
            self.qmp.run("migrate-set-parameters", **settings)
        except MonitorError as error:
            if options.method in str(error):
                raise HostError(f"this QEMU ({self.version}) has no method {options.method}") from error
            raise

    def cpu_seconds(self) -> float:
        """User and system time so far, finished threads included."""
        return cpu_seconds_of(self._process.pid)

    def stop(self) -> None:
        """Kill QEMU, whatever state it is in."""
        self.qmp.close()
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _last_words(self) -> str:
        self._process.kill()
        _, said = self._process.communicate()
        lines = [line for line in said.decode(errors="replace").splitlines() if line]
        return lines[-1] if lines else ""


@contextmanager
def _machine(binary: str, ram: GuestRam, options: PeerOptions, incoming: bool) -> Iterator[Machine]:
    machine = Machine(binary, ram, options, incoming)
    try:
        yield machine
    finally:
        machine.stop()


def migrate(content: Content, size_bytes: int, options: PeerOptions) -> PeerRow:
    """Migrate `content` with QEMU. Raises HostError, RunFailed."""
    binary = find_qemu()
    check_memory(size_bytes, 2, 0, 0)
    with ExitStack() as stack:
        source, destination = (_ram(stack, size_bytes, label) for label in ("peer-source", "peer-dest"))
        receiving = stack.enter_context(_machine(binary, destination, options, incoming=True))
        sending = stack.enter_context(_machine(binary, source, options, incoming=False))
        # After QEMU has started: it may put firmware into the RAM of a machine that starts.
        content.fill(source)
        try:
            return _migrate(sending, receiving, source, destination)
        except MonitorError as error:
            raise RunFailed(f"QEMU: {error}") from error


def check_method(method: str) -> None:
    """Start a small QEMU and ask it for the method. Raises HostError where it has none of it."""
    with ExitStack() as stack:
        ram = _ram(stack, MIN_RAM_BYTES, "peer-asked")
        options = PeerOptions(method, 1, 1, prealloc=False)
        stack.enter_context(_machine(find_qemu(), ram, options, incoming=False))


def _ram(stack: ExitStack, size_bytes: int, label: str) -> GuestRam:
    ram = GuestRam.create(size_bytes, label)
    stack.callback(os.close, ram.fd)
    return ram


def _migrate(sending: Machine, receiving: Machine, source: GuestRam, destination: GuestRam) -> PeerRow:
    receiving.qmp.run("migrate-incoming", uri="tcp:127.0.0.1:0")
    address = receiving.qmp.run("query-migrate")["socket-address"][0]
    before = sending.cpu_seconds(), receiving.cpu_seconds()
    sending.qmp.run("migrate", uri=f"tcp:127.0.0.1:{address['port']}")
    status = sending.qmp.wait_for_migration(TIMEOUT_SECONDS)
    if status == "completed":
        status = receiving.qmp.wait_for_migration(TIMEOUT_SECONDS)
    if status != "completed":
        why = sending.qmp.run("query-migrate").get("error-desc", "no reason given")
        raise RunFailed(f"QEMU's migration {status}: {why}")
    used = sending.cpu_seconds() - before[0], receiving.cpu_seconds() - before[1]
    said = sending.qmp.run("query-migrate")
    populate(destination.mapping, write=False)
    different = first_difference(source, destination, lambda share: None)
    if different is not None:
        raise RunFailed(f"QEMU's destination RAM is not the image: page {different} differs")
    return PeerRow(
        version=sending.version,
        total_ms=float(said["total-time"] - said["setup-time"]),
        downtime_ms=float(said["downtime"]),
        guest_bytes=int(said["ram"]["normal-bytes"]),
        wire_bytes=int(said["ram"]["transferred"]),
        send_cpu_seconds=used[0],
        recv_cpu_seconds=used[1],
        verified=True,
    )


def build_parser(program: str) -> Parser:
    """All options, with units and defaults."""
    parser = Parser(
        program, "Migrate a RAM image with a real QEMU on this host, and print what it took.", 1, epilog=SIZES
    )
    add_ram_arguments(parser)
    add = parser.add_argument
    add("--method", metavar="METHOD", help=f"{', '.join(METHODS)} (default zstd)")
    add("--level", metavar="N", help="compression level (default 1)")
    add("--channels", metavar="N", help=f"multifd channels (default {DEFAULT_CHANNELS})")
    add("--prealloc", action="store_true", default=None, help="QEMU's prealloc=on, both sides (default off)")
    add("--max-bandwidth", metavar="RATE", help="bytes per second, 0 is no limit (default 0)")
    add("--json", metavar="FILE", help="write the row as JSON; - is standard output (default none)")
    return parser


def read(given: Given) -> tuple[RamOptions, PeerOptions]:
    """Raises UsageError."""
    method = given.choice("method", METHODS, "zstd")
    levels = LEVELS.get(method)
    if levels is None:
        given.refuse(("level",), f"method {method} has no levels")
        levels = range(1, 2)
    options = PeerOptions(
        method=method,
        level=given.whole("level", levels[0], levels[-1], 1),
        channels=given.whole("channels", 1, MAX_WORKERS, DEFAULT_CHANNELS),
        prealloc=given.flag("prealloc"),
        max_bandwidth=given.rate("max_bandwidth"),
    )
    return read_ram(given), options


def run(given: Given, command: list[str]) -> int:
    """Migrate, print, and return the exit code."""
    ram, options = read(given)
    target = given.new_file("json")
    row = migrate(ram.content(), ram.size_bytes, options)
    if target is not None:
        ratio = row.compression_ratio
        save_json({"command": command, **asdict(options), **asdict(row), "compression_ratio": ratio}, target)
    if target != "-":
        show(
            f"QEMU {row.version}, {options.method}: {row.total_ms:.0f} ms, "
            f"downtime {row.downtime_ms:.0f} ms, "
            f"{row.guest_megabytes_per_second:.0f} guest MB/s, ratio {row.compression_ratio:.2f}, "
            f"CPU s send {row.send_cpu_seconds:.2f} recv {row.recv_cpu_seconds:.2f}, equal to the image"
        )
    return 0


COMMAND = Command(build_parser, run)

if __name__ == "__main__":
    sys.exit(execute("tools.qemu.peer", sys.argv[1:]))
