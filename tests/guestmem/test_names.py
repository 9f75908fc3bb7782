"""The guard of names, where it does not do what it should."""

from __future__ import annotations

import os
import subprocess
import sys

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
