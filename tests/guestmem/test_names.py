"""The guard of names, where it does not do what it should."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.support.harness import ROOT

STOPPED = """
import os, signal
from guestmem import names
with names.guarded_name("/ferry-test-none"):
    pass
print(names._current._pid, flush=True)
os.kill(names._current._pid, signal.SIGSTOP)
"""


def test_a_guard_that_stands_still_holds_nobody_up() -> None:
    started = [sys.executable, "-c", STOPPED]
    done = subprocess.run(started, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and done.stderr == ""
    assert not os.path.exists(f"/proc/{int(done.stdout)}")


KILLED = """
import os, signal
from guestmem import names
with names.guarded_name("/ferry-test-none"):
    pass
print(names._current._pid, flush=True)
os.kill(names._current._pid, signal.SIGSTOP)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_guard_that_stands_still_does_not_outlive_its_killed_creator() -> None:
    started = [sys.executable, "-c", KILLED]
    done = subprocess.run(started, cwd=ROOT, capture_output=True, text=True, timeout=20)
    guard = int(done.stdout)
    until = time.monotonic() + 10
    while is_running(guard) and time.monotonic() < until:
        time.sleep(0.01)
    assert not is_running(guard)


def is_running(pid: int) -> bool:
    """Not gone, and no zombie that somebody else has to reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
