"""Run the product as a user does, and see what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from guestmem.segment import SHM
from pipeline.cli.main import execute
from pipeline.processes.signals import ENDING

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 60.0


@dataclass
class Ended:
    """A run that has ended."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        document = json.loads(self.out)
        assert isinstance(document, dict)
        return document

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error:")]


class Run:
    """`python -m pipeline.run`, or another of the commands, in a session of its own."""

    def __init__(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        module: str = "pipeline.run",
        prefix: tuple[str, ...] = (),
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            pass_fds=pass_fds,
            env={**os.environ, **(environment or {})},
        )
        self.session = self.process.pid
        self._said: list[str] = []

    def wait_for(self, text: str) -> str:
        """Read standard error until a line holds `text`; that line."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._said.append(line)
            if text in line:
                return line
        raise AssertionError(f"never said {text!r}: {''.join(self._said)}")

    def pids(self, name: str) -> list[int]:
        """Processes of this run by kernel name: `rf channel 0` and so on."""
        return [pid for pid in session_pids(self.session) if _comm(pid).startswith(name)]

    def one(self, name: str) -> int:
        """The first process of that name, once there is one."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if found := self.pids(name):
                return found[0]
            if self.process.poll() is not None:
                break
            time.sleep(0.002)
        raise AssertionError(f"no process {name!r}")

    def end(self, timeout: float = TIMEOUT_SECONDS) -> Ended:
        """Wait for the end; kill the whole session when it takes too long."""
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.session, signal.SIGKILL)
            self.process.communicate()
            raise AssertionError(f"still running after {timeout} s") from None
        return Ended(self.process.returncode, out, "".join(self._said) + err)


def run(
    *arguments: str,
    environment: dict[str, str] | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> Ended:
    """Run to the end; nothing may be left behind."""
    before = leftovers()
    running = Run(*arguments, environment=environment)
    ended = running.end(timeout)
    assert_clean(running.session, before)
    return ended


def migrate(*arguments: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """A run that must complete; its result."""
    ended = run(*arguments, "--json", "-", environment=environment)
    assert ended.code == 0, ended.err
    assert ended.result["status"] == "completed"
    assert ended.result["verified"] is True
    return ended.result


def in_process(module: str, *arguments: str) -> int:
    """A command in this process, for what ends before anything is forked; its exit code."""
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        return execute(module, list(arguments))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def read(command: ModuleType, *arguments: str) -> Any:
    """What a command makes of its command line. Raises UsageError."""
    return command.read(command.build_parser("test").read(list(arguments)))


def tool(
    name: str, *arguments: str, environment: dict[str, str] | None = None, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end; nothing may be left behind."""
    before = leftovers()
    ended = subprocess.run(
        [sys.executable, "-m", name, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    assert leftovers() == before
    return ended


def session_pids(session: int) -> list[int]:
    """Living processes of a session (zombies are not living)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def leftovers() -> set[str]:
    """Names of ours in shared memory."""
    return {str(path) for path in SHM.glob("*ramferry*")} if SHM.is_dir() else set()


def assert_clean(session: int, before: set[str], seconds: float = 2.0) -> None:
    """Within two seconds no process or segment of the run is left."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        alive, named = session_pids(session), leftovers() - before
        if not alive and not named:
            return
        time.sleep(0.02)
    raise AssertionError(f"left behind: processes {alive}, names {named}")


def until(true: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
