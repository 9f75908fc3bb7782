"""Which users this process may trust: its own, and root.

In a user namespace every user without a mapping shows as one number, the overflow uid
(user_namespaces(7)). It may be anybody, so it equals no user here, not even this process's own.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT_UID = 0
OVERFLOW_UID_FILE = Path("/proc/sys/kernel/overflowuid")
UID_MAP_FILE = Path("/proc/self/uid_map")
ALL_USERS = "0 0 4294967295"
"""The map of the first user namespace: every user is who the number says."""


def is_trusted(uid: int) -> bool:
    """Whether a user is this process's own or root, by a number that says who it is."""
    return uid in (os.geteuid(), ROOT_UID) and not is_nameless(uid)


def is_nameless(uid: int) -> bool:
    """Whether a number stands for every user that has none in this process's user namespace."""
    try:
        overflow = int(OVERFLOW_UID_FILE.read_text())
        all_have_one = " ".join(UID_MAP_FILE.read_text().split()) == ALL_USERS
    except OSError:
        return False  # without /proc nothing is known of namespaces
    return uid == overflow and not all_have_one
