"""The parser of every command: argparse, with errors of one line."""

from __future__ import annotations

import argparse
from typing import NoReturn

from pipeline import __version__
from pipeline.cli.values import Given
from pipeline.errors import UsageError

EXIT_CODES = {
    0: "completed",
    1: "failed",
    2: "wrong usage, or this host cannot do it",
    3: "did not converge",
    4: "the other side refused",
    130: "cancelled",
}
SIZES = (
    "Sizes are bytes, or take K, M, G (powers of 1024). Rates are the same per second, or bits such as "
    "100Mbit or 1Gbit."
)


class Parser(argparse.ArgumentParser):
    """A command's options. Those that every command has are added here."""

    def __init__(self, program: str, description: str, *exit_codes: int, epilog: str = "") -> None:
        """`exit_codes` are those that the command may end with, beside 0, 2 and 130."""
        codes = sorted({0, 2, 130, *exit_codes})
        said = ", ".join(f"{code} {EXIT_CODES[code]}" for code in codes)
        super().__init__(
            prog=program,
            description=description,
            epilog=f"{epilog} Exit codes: {said}.".strip(),
            allow_abbrev=False,
        )
        self.add_argument("--version", action="version", version=f"ramferry {__version__}")
        self.add_argument(
            "--debug",
            action="store_true",
            default=None,
            help="log what goes on, and print tracebacks; RAMFERRY_DEBUG=1 does the same (default off)",
        )

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing and leaving."""
        raise UsageError(f"{message} (see --help)")

    def read(self, arguments: list[str]) -> Given:
        """The command line. Raises UsageError."""
        return Given(self.parse_args(attach_negative(arguments)))


def attach_negative(arguments: list[str]) -> list[str]:
    """`--size -1G` as `--size=-1G`: argparse takes what begins with a dash for an option."""
    attached: list[str] = []
    for argument in arguments:
        follows_option = attached and attached[-1].startswith("--") and "=" not in attached[-1]
        if argument[:1] == "-" and argument[1:2].isdigit() and follows_option:
            attached[-1] += "=" + argument
        else:
            attached.append(argument)
    return attached
