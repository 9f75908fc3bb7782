"""`python -m pipeline.run`: one migration with both ends here, from the command line to the result.

Signals are caught before anything heavy is imported, so that Ctrl-C ends in one line at any time.
"""

from __future__ import annotations

import os
import signal
import sys

from pipeline.cli.main import cancelled_early, guarded

if __name__ == "__main__":
    signal.signal(signal.SIGINT, cancelled_early)
    signal.signal(signal.SIGTERM, cancelled_early)
    # numpy's BLAS would start a thread a core, and a process with threads should not fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pipeline.cli.one_run import run_command
from pipeline.options import parse


def main(arguments: list[str]) -> int:
    """Run, print, and return the exit code."""
    return run_command("pipeline.run", parse, arguments)


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
