"""Other programs' commands that we start: they end with this process, and no signal is lost meanwhile."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

from pipeline.processes.child import die_with_parent


def start_command(command: list[str], **how: Any) -> subprocess.Popen[Any]:
    """A command of another program's, which ends with this process. Raises OSError.

    Signals wait until it has begun: what a handler raises while Python forks is ignored.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))

    def begin() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        die_with_parent()

    process: subprocess.Popen[Any] | None = None
    try:
        process = subprocess.Popen(command, preexec_fn=begin, **how)
        return process
    finally:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        except BaseException:
            if process is not None:
                process.kill()
                process.wait()
            raise


def run_command(command: list[str], timeout_seconds: float) -> subprocess.CompletedProcess[str]:
    """Run it to its end, and take what it says; killed when it takes too long, or when we are to end.

    Raises OSError, subprocess.TimeoutExpired.
    """
    process = start_command(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            out, err = process.communicate(timeout=timeout_seconds)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)
