"""Progress of a long measurement."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Print a line of progress to standard error."""
    print(text, file=sys.stderr, flush=True)
