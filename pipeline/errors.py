"""How a run can end other than well: one line for the user, and an exit code (DESIGN part 8)."""

from __future__ import annotations


class FerryError(Exception):
    """The root. `exit_code` is what the process ends with, `status` what the result says."""

    exit_code = 1
    status = "failed"


class RunFailed(FerryError):
    """A worker died or failed, or the copy is not the source."""


class UsageError(FerryError):
    """The command line asks for what is not valid."""

    exit_code = 2


class HostError(FerryError):
    """This host cannot do what was asked."""

    exit_code = 2


class NotConverged(FerryError):
    """The guest dirties pages faster than they can be moved, within the limits given."""

    exit_code = 3
    status = "not-converged"


class Cancelled(FerryError):
    """Ctrl-C or SIGTERM."""

    exit_code = 130
    status = "cancelled"


def one_line(error: BaseException) -> str:
    """An exception as one line of text."""
    text = " ".join(str(error).split())
    return text or type(error).__name__
