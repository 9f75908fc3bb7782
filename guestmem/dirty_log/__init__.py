"""The dirty logs, by name: which pages were written since the last sync.

A log is one file in this folder, with the two sides that `guestmem.dirty_log.contract` describes,
and one entry in `KINDS`. Command lines, the guest and the migration know logs only from here.
"""

from __future__ import annotations

from guestmem.dirty_log import kernel, shared
from guestmem.dirty_log.contract import LogKind

KINDS: dict[str, LogKind] = {
    "kernel": kernel.KIND,
    "shared": shared.KIND,
}
"""Every log, the preferred one first."""

AUTO = "auto"
"""The first of `KINDS` that works for both the guest and the migration."""

LOGS = (AUTO, *KINDS)
"""What `--dirty-log` takes."""

LOGS_HELP = ", ".join(f"{name} ({kind.summary})" for name, kind in KINDS.items())


def names_to_try(log: str) -> tuple[str, ...]:
    """The logs to try in turn for one of `LOGS`."""
    return tuple(KINDS) if log == AUTO else (log,)
