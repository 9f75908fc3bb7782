"""Two real QEMUs with the live guest, and two relays between them."""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guestmem.ram import GuestRam
from pipeline.qemu.monitor import MonitorError
from tests.support.harness import ROOT
from tools.qemu.guest.machine import GuestMachine, GuestOptions

GUEST = GuestOptions(192 << 20, writer_mib=48, rate_mib=4)
DOWNTIME_LIMIT_MS = 300
END_SECONDS = 150.0
MAX_BANDWIDTH = 10**10


@dataclass
class Relay:
    """A relay's process, and what it says."""

    process: subprocess.Popen[str]
    json: Path
    said: str = ""

    def end(self, seconds: float = END_SECONDS) -> int:
        """Wait for its end; the exit code."""
        _, err = self.process.communicate(timeout=seconds)
        self.said += err
        assert "Traceback" not in self.said, self.said
        return self.process.returncode

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.json.read_text())
        return found

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def _takes_ctrl_c() -> None:
    """Also where these tests run in the background of a shell, which has it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start_relay(folder: Path, name: str, *arguments: str, prefix: tuple[str, ...] = ()) -> Relay:
    target = folder / f"{name}.json"
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "pipeline.relay", *arguments, "--json", str(target)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_takes_ctrl_c,
    )
    return Relay(process, target)


@dataclass
class Rig:
    """One migration's worth of machines."""

    folder: Path
    source: GuestMachine
    destination: GuestMachine
    relays: dict[str, Relay] = field(default_factory=dict)

    @property
    def out_path(self) -> Path:
        return self.folder / "out.sock"

    @property
    def in_path(self) -> Path:
        return self.folder / "in.sock"

    def start_relays(
        self, *options: str, source: tuple[str, ...] = (), destination: tuple[str, ...] = ()
    ) -> None:
        """Both, over a Unix socket unless `--to` and `--accept` are said."""
        link = f"unix:{self.folder}/link.sock"
        there = ("--accept", link) if "--accept" not in destination else ()
        here = ("--to", link) if "--to" not in source else ()
        both = [option for option in options if option]
        self.relays["destination"] = start_relay(
            self.folder, "destination", *there, "--deliver", f"unix:{self.in_path}", *both, *destination
        )
        self.relays["source"] = start_relay(
            self.folder, "source", *here, "--listen", f"unix:{self.out_path}", *both, *source
        )
        until = time.monotonic() + 20
        while not self.out_path.exists():
            assert time.monotonic() < until and self.relays["source"].process.poll() is None
            time.sleep(0.02)

    def monitor(self, side: str) -> Path:
        return self.folder / f"{side}-qmp.sock"

    def set(self, *, multifd: int = 2, return_path: bool = True, **more: Any) -> None:
        """Capabilities and parameters of both QEMUs; `more` are further capabilities and parameters."""
        names = {"events": True, "return-path": return_path, "multifd": multifd > 0}
        parameters: dict[str, Any] = {"downtime-limit": DOWNTIME_LIMIT_MS, "max-bandwidth": MAX_BANDWIDTH}
        if multifd:
            parameters["multifd-channels"] = multifd
        for name, value in more.items():
            (names if isinstance(value, bool) else parameters)[name.replace("_", "-")] = value
        for machine in (self.source, self.destination):
            machine.qmp.set_capabilities(names)
            machine.qmp.run("migrate-set-parameters", **parameters)

    def migrate(self) -> None:
        """Start it."""
        self.destination.qmp.run("migrate-incoming", uri=f"unix:{self.in_path}")
        self.source.qmp.run("migrate", uri=f"unix:{self.out_path}")

    def status(self, side: str) -> tuple[str, str]:
        """Of the guest and of the migration; `gone` where QEMU has ended."""
        machine = self.source if side == "source" else self.destination
        try:
            status = machine.qmp.run("query-status")["status"]
            return status, machine.qmp.run("query-migrate").get("status", "none")
        except MonitorError:
            return "gone", "gone"

    def await_status(self, side: str, *wanted: str, seconds: float = END_SECONDS) -> str:
        """Wait for one of these states of the migration."""
        until = time.monotonic() + seconds
        while (found := self.status(side)[1]) not in wanted:
            assert time.monotonic() < until, f"{side} is {found}, not {wanted}; {self.status(side)}"
            time.sleep(0.05)
        return found

    def running(self) -> builtins.set[str]:
        """Which sides' guests run."""
        return {side for side in ("source", "destination") if self.status(side)[0] == "running"}


class OutOfBand:
    """A monitor that was opened in time: what it is asked, QEMU takes while its main thread waits (QMP's
    exec-oob), but that thread is what accepts connections."""

    def __init__(self, monitor: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(str(monitor))
        self._lines = self._socket.makefile("rw", encoding="utf-8")
        self._lines.readline()
        self._ask({"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}})

    def run(self, command: str, **arguments: Any) -> None:
        self._ask({"exec-oob": command, "arguments": arguments, "id": 1})

    def _ask(self, asked: dict[str, Any]) -> None:
        self._lines.write(json.dumps(asked) + "\n")
        self._lines.flush()
        answer = json.loads(self._lines.readline())
        while "event" in answer:
            answer = json.loads(self._lines.readline())
        assert "return" in answer, answer

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


@contextlib.contextmanager
def rig(folder: Path, options: GuestOptions = GUEST, *, paused: bool = False) -> Iterator[Rig]:
    """A guest that works, and a QEMU that waits for it; `paused` is QEMU's -S at the destination."""
    rams = [GuestRam.create(options.size_bytes, f"live-{side}") for side in ("source", "destination")]
    machines: list[GuestMachine] = []
    made: Rig | None = None
    try:
        machines.append(GuestMachine(rams[0], options, monitor=folder / "source-qmp.sock"))
        machines.append(
            GuestMachine(
                *(rams[1], options), incoming=True, run=not paused, monitor=folder / "destination-qmp.sock"
            )
        )
        machines[0].wait_for_line(1)
        made = Rig(folder, machines[0], machines[1])
        yield made
    finally:
        for relay in made.relays.values() if made is not None else ():
            if relay.process.poll() is None:
                relay.process.send_signal(signal.SIGKILL)
            relay.process.wait()
        for machine in machines:
            machine.stop()
        for ram in rams:
            os.close(ram.fd)


def goes_on(made: Rig, side: str = "destination") -> None:
    """The guest counts on there, and has found no wrong page."""
    machine = made.source if side == "source" else made.destination
    told = machine.wait_for_line(0, 20)
    after = machine.wait_for_line(told.count + 1, 20)
    assert after.bad == 0, after
    assert after.count > told.count
