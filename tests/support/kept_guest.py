"""A guest that keeps running, as `tools.dirtyrate --create` makes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from guestmem.guest import visit
from guestmem.ipc import Connection
from tests.support.harness import ROOT, Ended


class Kept:
    """`python -m tools.dirtyrate --create NAME` in the background."""

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tools.dirtyrate", "--create", name, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "runs" in line:
                return
        raise AssertionError("the guest never ran")

    def state(self) -> dict[str, object]:
        connection = self.visit()
        connection.send({"kind": "ask"})
        message, _ = connection.receive()
        connection.close()
        return message

    def visit(self) -> Connection:
        deadline = time.monotonic() + 5
        while True:
            connection = visit(self.name)
            connection.send({"kind": "ask"})
            message, _ = connection.receive()
            if message["kind"] == "state" or time.monotonic() > deadline:
                return connection
            connection.close()  # the visitor before is not forgotten yet
            time.sleep(0.02)

    def assert_runs_on(self) -> None:
        """Writes, at full speed."""
        first = self.state()
        time.sleep(0.3)
        then = self.state()
        assert (then["state"], then["throttle_percent"]) == ("running", 0)
        assert int(str(then["writes"])) > int(str(first["writes"]))

    def end(self) -> Ended:
        os.killpg(self.process.pid, signal.SIGINT)
        out, err = self.process.communicate(timeout=5)
        return Ended(self.process.returncode, out, err)
