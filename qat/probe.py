"""Find out whether a QAT device answers, in a child process.

qzInit starts the user-space driver, and a process that has started it must not fork workers. A device
that hangs must not hang the caller either. So a child asks, and has a time limit.
"""

from __future__ import annotations

from qat.child import ask_in_child
from qat.library import load
from qat.session import Session
from qat.status import LibraryMissing, QatStatusError

ANSWERED = "QZ_OK"
MISSING = "libqatzip is missing"
SILENT = "no answer"
TIMEOUT_SECONDS = 10.0


def probe(timeout_seconds: float = TIMEOUT_SECONDS) -> str:
    """ANSWERED if a session can be opened on a device, otherwise the reason why not."""
    return ask_in_child(_ask, timeout_seconds) or SILENT


def _ask() -> str:
    try:
        Session(load(), level=1, hw_buff_sz=64 << 10).close()
    except LibraryMissing:
        return MISSING
    except QatStatusError as error:
        return error.name
    return ANSWERED
