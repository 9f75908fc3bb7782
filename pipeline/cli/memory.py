"""The part of a command line about how images lie in memory."""

from __future__ import annotations

import argparse

from pipeline.cli.values import Given
from pipeline.options import HUGE_PAGES

DEFAULT = next(iter(HUGE_PAGES))


def add_memory_arguments(parser: argparse.ArgumentParser) -> None:
    """For whoever makes an image: a guest's RAM, or a destination."""
    ways = ", ".join(f"{name} ({what})" for name, what in HUGE_PAGES.items())
    parser.add_argument(
        "--huge-pages",
        metavar="HOW",
        help="put the image together to pages of 2 MiB, which spares every process its page tables: "
        f"{ways} (default {DEFAULT})",
    )


def read_huge_pages(given: Given, *, makes_images: bool, why_not: str) -> str:
    """Raises UsageError, with `why_not` where this command makes no image."""
    if not makes_images:
        given.refuse(("huge_pages",), why_not)
    return given.choice("huge_pages", tuple(HUGE_PAGES), DEFAULT)
