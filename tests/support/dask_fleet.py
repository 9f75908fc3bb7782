"""A Dask scheduler and workers, started as a user starts them: processes of their own, in one session."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.harness import ROOT, session_pids

START_SECONDS = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class HandFleet:
    """`dask scheduler`, and a `dask worker` for each name."""

    def __init__(self, folder: Path, *options: str, scheme: str = "tcp") -> None:
        self._folder = folder
        self._options = options
        port = free_port()
        self.address = f"{scheme}://127.0.0.1:{port}"
        self.scheduler = self._start(
            "scheduler", "--host", self.address, "--dashboard-address", "127.0.0.1:0"
        )
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        _until(lambda: _listens(port))

    def add(self, name: str, *options: str) -> None:
        """A worker of that Dask name."""
        what = options or ("--resources", "ramferry=1", "--nthreads", "1")
        where = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
        folder = ("--local-directory", str(self._folder))
        self.workers[name] = self._start("worker", self.address, "--name", name, *what, *where, *folder)

    def kill(self, name: str) -> None:
        """A worker with its nanny, and with what they run: a host that loses its power."""
        _kill(self.workers.pop(name))

    def commands(self) -> list[int]:
        """Processes that the workers have started."""
        everything = [pid for worker in self.workers.values() for pid in session_pids(worker.pid)]
        return [pid for pid in everything if b"runpy.run_module" in _command(pid)]

    def close(self) -> None:
        for process in (*self.workers.values(), self.scheduler):
            _kill(process)

    def _start(self, kind: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments, *self._options]
        with (self._folder / f"{kind}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )


def _kill(process: subprocess.Popen[bytes]) -> None:
    """A session's processes, but for the one that removes the semaphores of the others once they are gone."""
    for pid in session_pids(process.pid):
        if b"resource_tracker" not in _command(pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    process.wait()


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not true():
        assert time.monotonic() < deadline, "the scheduler does not start"
        time.sleep(0.1)


@contextmanager
def hand_fleet(folder: Path, *options: str, scheme: str = "tcp") -> Iterator[HandFleet]:
    fleet = HandFleet(folder, *options, scheme=scheme)
    try:
        yield fleet
    finally:
        fleet.close()
