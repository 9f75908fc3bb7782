"""The part of a command line about the proof and the result: verification, JSON, progress."""

from __future__ import annotations

import argparse

from pipeline.cli.guest import SETTINGS
from pipeline.cli.values import Given
from pipeline.errors import UsageError
from pipeline.options import CHECKS, SELF_CHECK

DEFAULT_CHECK = "images"


def add_result_arguments(parser: argparse.ArgumentParser) -> None:
    """What is done with a copy that is complete, and what is said of it."""
    add = parser.add_argument_group("the result").add_argument
    add(
        "--verify",
        nargs="?",
        const=DEFAULT_CHECK,
        metavar="HOW",
        help="check the copy at the end, off the clock: images (byte for byte), invariant (the "
        f"self-check of --preset {SELF_CHECK}, without the source), both (default {DEFAULT_CHECK})",
    )
    add("--no-verify", action="store_true", default=None, help="do not check the copy (default: check it)")
    add_output_arguments(parser)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command that runs for a while takes."""
    add = parser.add_argument
    add(
        "--json",
        metavar="FILE",
        help="write the result as JSON; - is standard output, with nothing else on it (default none)",
    )
    add("--quiet", action="store_true", default=None, help="no progress and no warnings (default off)")


def read_verify(given: Given) -> str | None:
    """Which check is made, None for none. Raises UsageError."""
    if given.has("no_verify"):
        given.refuse(("verify",), "either this or --no-verify")
        return None
    how = given.choice("verify", tuple(CHECKS), DEFAULT_CHECK)
    if "invariant" in CHECKS[how] and given.text("attach") is None:
        other = given.text("preset") not in (None, SELF_CHECK)
        if other or any(given.has(name) for name in (*SETTINGS, "phases") if name != "dirty_rate"):
            raise UsageError(
                f"--verify {how}: only --preset {SELF_CHECK} can be judged without the source; "
                "leave out other workloads"
            )
    return how


def self_checking(verify: str | None) -> bool:
    """Whether the copy is to be judged without the source."""
    return verify is not None and "invariant" in CHECKS[verify]
