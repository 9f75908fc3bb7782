"""What a command leaves behind when it is told to end: nothing, in no folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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


@pytest.mark.parametrize("more", [(), ("--json", "-")])
def test_a_result_that_nobody_reads_does_not_hold_a_command_that_is_told_to_end(
    more: tuple[str, ...],
) -> None:
    nobody_reads, full = os.pipe()
    os.set_blocking(full, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(full, bytes(4096))
    os.set_blocking(full, True)
    arguments = ("pipeline.run", "--size", "16M", "--dirty-rate", "0", *more)
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while "checking the copy" not in process.stderr.readline():
        pass
    time.sleep(1.0)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=20)
    assert process.returncode == 130
    assert rest.splitlines() == ["error: cancelled by SIGTERM"]
    os.close(full)
    os.close(nobody_reads)
