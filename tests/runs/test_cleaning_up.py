"""What a command leaves behind when it is told to end: nothing, in no folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import ROOT, assert_clean, leftovers

COMMANDS = {
    "compare": (("tools.compare", "quick", "--output", "{folder}/results"), "[1/"),
    "bench": (("tools.bench", "--suite", "auto", "--size", "64M", "--repeat", "1"), "auto"),
    "dirtyrate": (("tools.dirtyrate", "--create", "cleaning-up", "--size", "64M"), "guest"),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_told_to_end_leaves_nothing(
    name: str, number: signal.Signals, tmp_path: Path
) -> None:
    """An image of 65 MB stayed in /tmp."""
    before = leftovers()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    arguments, words = COMMANDS[name]
    process = subprocess.Popen(
        [sys.executable, "-m", *(one.format(folder=tmp_path) for one in arguments)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    said = ""
    while words not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(number)
    _, rest = process.communicate(timeout=20)
    assert process.returncode == 130, rest
    assert rest.strip().splitlines()[-1].startswith(f"error: cancelled by {number.name}")
    assert list(temporary.iterdir()) == []
    assert_clean(process.pid, before)
