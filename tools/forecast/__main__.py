"""`python -m tools.forecast`: what a migration will take, before it starts; and how good such words were."""

from __future__ import annotations

import sys

from pipeline.cli.main import execute

if __name__ == "__main__":
    sys.exit(execute("tools.forecast.command", sys.argv[1:], "python -m tools.forecast"))
