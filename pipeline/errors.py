"""Every way in which a command can end other than well: one line for the user, and an exit code.

    FerryError                      exit code
    ├── UsageError              2   the command line asks for what is not valid
    ├── HostError               2   this host cannot do what was asked
    │   └── CodecUnavailable        ... since it lacks what a method needs
    ├── NotConverged            3   the guest dirties pages faster than they can be moved
    ├── PeerRefused             4   the other side is there, and refuses
    ├── RunFailed               1   a worker died or failed, the network is gone, the copy is not the source
    │   ├── BadPacket               a packet that breaks its layout or the limits
    │   ├── BadFrame                bytes of a peer that break the protocol
    │   ├── CodecError              a codec could not do its work
    │   ├── PeerFailed              the other side has said that it failed, and why
    │   └── ConnectionLost          a connection is closed, reset or stalled; it may be made again
    │       └── PeerBusy            ... or is not taken now, but perhaps soon
    ├── InternalError           1   a fault of ours: the traceback is in the JSON, or printed by --debug
    └── Cancelled             130   Ctrl-C, SIGTERM or SIGHUP

`guestmem` and `qat` import nothing of ours, so they raise their own: `NoMemoryBehind`, `GuestExists`,
`NoSuchGuest` and the dirty logs' refusals become a HostError where the pipeline calls them, `qat.status`'s
errors a CodecError or a reason to compress in software.

A worker's exception crosses the process border as its line and its traceback (`traceback` below).
"""

from __future__ import annotations

import traceback as python_traceback


class FerryError(Exception):
    """The root. `exit_code` is what the process ends with, `status` what the result document says.

    `traceback` is that of the worker in which it happened; empty for one that was raised here.
    """

    exit_code = 1
    status = "failed"

    def __init__(self, text: str, traceback: str = "") -> None:
        super().__init__(text)
        self.traceback = traceback


class UsageError(FerryError):
    """The command line asks for what is not valid."""

    exit_code = 2


class HostError(FerryError):
    """This host cannot do what was asked."""

    exit_code = 2


class CodecUnavailable(HostError):
    """This host cannot run a method; the message says what to do."""


class NotConverged(FerryError):
    """The guest dirties pages faster than they can be moved, within the limits given."""

    exit_code = 3
    status = "not-converged"


class PeerRefused(FerryError):
    """The other side answers, and does not want this run: our certificate, size, methods or state."""

    exit_code = 4


class RunFailed(FerryError):
    """A worker died or failed, the network is gone, or the copy is not the source."""


class BadPacket(RunFailed):
    """A packet that breaks the layout or the limits, with the field and what it holds."""


class BadFrame(RunFailed):
    """Bytes of a peer that break the protocol, with the field and what it holds."""


class CodecError(RunFailed):
    """A codec could not do its work, with the return code by name where there is one."""


class PeerFailed(RunFailed):
    """The other side has said that it failed, and why: it is known what became of the run there."""


class ConnectionLost(RunFailed):
    """A connection does not work any more: closed, reset, or stalled."""


class PeerBusy(ConnectionLost):
    """Nobody listens, or the receiver cannot take this connection now: it may soon."""


class InternalError(FerryError):
    """An exception that nobody expected: a fault of ours."""

    @classmethod
    def of(cls, error: BaseException) -> InternalError:
        """An exception of any kind, with its traceback."""
        return cls(f"internal error: {type(error).__name__}: {one_line(error)}", traceback_of(error))


class Cancelled(FerryError):
    """Ctrl-C, SIGTERM or SIGHUP."""

    exit_code = 130
    status = "cancelled"


def one_line(error: BaseException) -> str:
    """An exception as one line of text, which no terminal takes for orders."""
    return one_line_of(str(error)) or type(error).__name__


def one_line_of(text: str) -> str:
    """Text on one line; what cannot be printed is escaped."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


def traceback_of(error: BaseException) -> str:
    """Where an exception came from: the worker's traceback, if it crossed from one, then this process's."""
    here = "".join(python_traceback.format_exception(error))
    there = error.traceback if isinstance(error, FerryError) else ""
    return f"{there.rstrip()}\n\nwhich ended the run here:\n\n{here}" if there else here
