"""`python -m pipeline.send`: migrate a guest to another host, where `python -m pipeline.recv` waits."""

from __future__ import annotations

import sys

from pipeline.cli.main import execute

if __name__ == "__main__":
    sys.exit(execute("pipeline.cli.send", sys.argv[1:]))
