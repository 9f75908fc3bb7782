"""`python -m tools.bench`: measure ours beside QEMU and beside each codec alone."""

from __future__ import annotations

import sys

from pipeline.cli.main import execute

if __name__ == "__main__":
    sys.exit(execute("tools.bench.command", sys.argv[1:], "python -m tools.bench"))
