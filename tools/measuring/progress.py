"""What a long measurement says while it goes on."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)
