"""`python -m pipeline.relay`: carry a real VM's migration between two QEMUs."""

from __future__ import annotations

import sys

from pipeline.cli.main import execute

if __name__ == "__main__":
    sys.exit(execute("pipeline.cli.relay", sys.argv[1:]))
