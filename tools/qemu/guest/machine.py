"""A QEMU with the live guest in it, over RAM of ours: started, listened to, stopped."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from guestmem.ram import GuestRam
from pipeline.errors import HostError, RunFailed
from pipeline.processes.command import start_command
from pipeline.qemu.monitor import Monitor, MonitorError
from qat.private_folder import user_cache
from qat.scripts import PROJECT, in_clone, shipped_script
from tools.qemu.guest.initramfs import write_initramfs
from tools.qemu.peer import find_qemu

PARTS = ("vmlinuz", "busybox", "writer")
WORKS = ("writer", "busy")
MIN_GUEST_BYTES = {"writer": 160 << 20, "busy": 256 << 20}
BOOT_SECONDS = 120.0
LOOK_SECONDS = 0.05

LINE = re.compile(rb"ferry count=(\d+) written=(\d+) bad=(\d+) checked=(\d+)\r?\n")


@dataclass(frozen=True)
class GuestOptions:
    """What runs in the guest: `work` is `writer` or `busy` (which writes too); the writer has so many MiB and
    writes so many of them a second."""

    size_bytes: int
    work: str = "writer"
    writer_mib: int = 64
    rate_mib: int = 20


@dataclass(frozen=True)
class Told:
    """The guest's own last line: seconds it ran, pages written, wrong pages, pages checked."""

    count: int
    written: int
    bad: int
    checked: int


def guest_folder() -> Path:
    """Where the guest's parts are. Raises HostError."""
    cache = user_cache()
    folder = PROJECT / ".guest" if in_clone() or cache is None else cache / "guest"
    if not all((folder / part).exists() for part in PARTS):
        raise HostError(f"the live guest is not here: run {shipped_script('get_guest.sh')}")
    return folder


def _console(path: Path | str | None) -> int:
    """A descriptor of where the console goes: memory, or a file. Raises HostError."""
    if path is None:
        return os.memfd_create("console")
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error


class GuestMachine:
    """One QEMU; its console and its monitor are ours."""

    def __init__(
        self,
        ram: GuestRam,
        options: GuestOptions,
        *,
        incoming: bool = False,
        run: bool = True,
        prefix: tuple[str, ...] = (),
        monitor: Path | str | None = None,
        console: Path | str | None = None,
        more: tuple[str, ...] = (),
    ) -> None:
        """`prefix` is what QEMU's command begins with, such as `ip netns exec NAME`; `monitor` is a place for
        another one, `console` a file for the guest, `more` further options of QEMU's. With `incoming` it
        waits for a migration (`defer`); `run` is whether the guest runs at once. Its root file system is in
        memory. Raises HostError.
        """
        parts = guest_folder()
        binary = find_qemu()
        self._console = _console(console)
        initramfs = os.memfd_create("initramfs")
        try:
            with os.fdopen(os.dup(initramfs), "wb") as root:
                write_initramfs(root, parts / "busybox", parts / "writer", with_files=options.work == "busy")
        except OSError as error:
            raise HostError(f"the guest's files cannot be put together: {error.strerror}") from error
        ours, theirs = socket.socketpair()
        words = f"FERRY_WORK={options.work} FERRY_MIB={options.writer_mib} FERRY_RATE={options.rate_mib}"
        command = [
            *(*prefix, binary, "-nodefaults", "-no-user-config", "-display", "none"),
            *("-machine", "pc,accel=tcg,memory-backend=ram", "-m", f"{ram.size_bytes}B"),
            *("-object", f"memory-backend-file,id=ram,share=on,size={ram.size_bytes},"),
            *("-kernel", str(parts / "vmlinuz"), "-initrd", f"/proc/self/fd/{initramfs}"),
            *("-append", f"console=ttyS0 quiet panic=-1 {words}", "-no-reboot"),
            *("-serial", f"file:/proc/self/fd/{self._console}"),
            *("-chardev", f"socket,id=monitor,fd={theirs.fileno()}", "-mon", "monitor,mode=control"),
            *(("-incoming", "defer") if incoming else ()),
            *(() if monitor is None else ("-qmp", f"unix:{monitor},server=on,wait=off")),
            *(() if run else ("-S",)),
            *more,
        ]
        at = command.index("-object") + 1
        command[at] += f"mem-path=/proc/self/fd/{ram.fd}"
        self.process = start_command(
            command,
            pass_fds=(ram.fd, theirs.fileno(), self._console, initramfs),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        os.close(initramfs)
        try:
            self.qmp = Monitor(ours)
        except MonitorError as error:
            self.process.kill()
            said = self.process.communicate()[1].decode(errors="replace").strip()
            raise HostError(f"{binary}: {said or error}") from error

    def told(self) -> Told | None:
        """The last line of the guest's own; None before the first."""
        found = LINE.findall(self._printed())
        return Told(*(int(number) for number in found[-1])) if found else None

    def _printed(self) -> bytes:
        return os.pread(self._console, os.fstat(self._console).st_size, 0)

    def wait_for_line(self, beyond: int = 0, seconds: float = BOOT_SECONDS) -> Told:
        """Wait until the guest has counted beyond that. Raises RunFailed."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            told = self.told()
            if told is not None and told.count > beyond:
                return told
            self.check_alive()
            time.sleep(LOOK_SECONDS)
        raise RunFailed(f"the guest has not counted beyond {beyond} in {seconds:.0f} s")

    def check_alive(self) -> None:
        """Raises RunFailed when QEMU has ended."""
        if self.process.poll() is not None:
            lines = self._printed().decode(errors="replace").strip().splitlines()
            said = f", the guest's last words were: {lines[-1].strip()}" if lines else ""
            raise RunFailed(f"the guest has ended{said}; it may need more memory")

    def stop(self) -> None:
        """Kill it, whatever state it is in."""
        with contextlib.suppress(Exception):
            self.qmp.close()
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()
        os.close(self._console)


@contextmanager
def live_guest(options: GuestOptions, ram: GuestRam) -> Iterator[GuestMachine]:
    """A guest in that RAM that has begun to work. Raises HostError, RunFailed."""
    machine = GuestMachine(ram, options)
    try:
        machine.wait_for_line()
        yield machine
    finally:
        machine.stop()
