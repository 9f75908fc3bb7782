"""What a reader types to run a script that comes with the project."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
"""The clone's root, or the site-packages folder that the project is installed in."""

SCRIPTS = PROJECT / "tools"


def in_clone() -> bool:
    """Whether the code runs from a clone rather than from an installed package."""
    return (PROJECT / "pyproject.toml").is_file()


def shipped_script(name: str) -> str:
    """The command that runs `tools/NAME`, as it can be typed in the working directory.

    `tools/NAME` in the root of a clone; elsewhere `sh` and the absolute path, since an installer may
    drop the executable bit.
    """
    script, relative = SCRIPTS / name, Path("tools", name)
    try:
        here = in_clone() and relative.samefile(script)
    except OSError:
        here = False
    return str(relative) if here and os.access(script, os.X_OK) else f"sh {shlex.quote(str(script))}"
