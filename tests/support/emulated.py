"""An emulated QAT device beside a test."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.fake_device import compiler
from tests.support.harness import ROOT


@contextmanager
def emulator(*options: str) -> Iterator[tuple[dict[str, str], subprocess.Popen[str]]]:
    """The environment to run in, and the device's process."""
    compiler()
    process = subprocess.Popen(
        [sys.executable, "-m", "qat.emulator", *options], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        names = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines)
        yield names, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()
