"""Paths that name an open descriptor of some process: /dev/stdout, /dev/fd/1, /proc/self/fd/1 (proc(5)).

To open one is to open what is behind it, which is somebody else's file by another name.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

DESCRIPTORS = re.compile(r"/proc/\d+(/task/\d+)?/fd")
MAX_LINKS = 40
"""As many as Linux follows (path_resolution(7))."""


def names_descriptor(path: Path) -> bool:
    """Whether a path, or a link on the way of its last part, names an open descriptor."""
    for _ in range(MAX_LINKS):
        folder = path.parent.resolve()
        if DESCRIPTORS.fullmatch(str(folder)):
            return True
        try:
            path = folder / os.readlink(folder / path.name)
        except OSError:
            return False
    return False
