"""`python -m pipeline.run`: migrations with both ends on this host, from the command line to the result."""

from __future__ import annotations

import sys

from pipeline.cli.main import execute

if __name__ == "__main__":
    sys.exit(execute("pipeline.cli.run", sys.argv[1:]))
