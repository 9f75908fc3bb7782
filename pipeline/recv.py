"""`python -m pipeline.recv`: wait for a sender, and receive its guest's RAM."""

from __future__ import annotations

import sys

from pipeline.cli.main import execute

if __name__ == "__main__":
    sys.exit(execute("pipeline.cli.recv", sys.argv[1:]))
