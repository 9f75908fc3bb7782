"""No run leaves a process that somebody else must reap: not every PID 1 does."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.harness import ROOT

SUBREAPER = """
import ctypes, os, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become ours
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
time.sleep(0.3)
left = []
while True:
    try:
        pid, _ = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        break
    if pid == 0:
        break
    left.append(pid)
print(code, len(left))
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("-m", "pipeline.run", "--size", "16M"), 0),
        (("-m", "pipeline.run", "--size", "16M", "--transport", "tcp"), 0),
        (("-m", "pipeline.run", "--attach", "nobody-of-this-name"), 2),
        (("-m", "pipeline.run", "--size", "16M", "--max-rounds", "1", "--dirty-rate", "1G",
          "--max-bandwidth", "8M", "--downtime-limit", "1"), 3),
        (("-m", "tools.dirtyrate", "--measure", "--size", "16M", "--for", "0.2"), 0),
    ],
)  # fmt: skip
def test_nothing_is_left_to_reap(arguments: tuple[str, ...], code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SUBREAPER, sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stdout.split() == [str(code), "0"]
