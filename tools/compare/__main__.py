"""`python -m tools.compare`: compare methods over channels, bandwidths, prealloc, dirty rates and images."""

from __future__ import annotations

import sys

from pipeline.cli.main import execute

if __name__ == "__main__":
    sys.exit(execute("tools.compare.command", sys.argv[1:], "python -m tools.compare"))
