"""`python -m tools.evacuate`: plan how hosts are emptied of their VMs, and carry it out."""

from __future__ import annotations

import sys

from pipeline.cli.main import execute

if __name__ == "__main__":
    sys.exit(execute("tools.evacuate.command", sys.argv[1:], "python -m tools.evacuate"))
