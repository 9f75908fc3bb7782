"""Documents into the files that were asked for."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

from pipeline.errors import Cancelled, RunFailed

_saved: set[str] = set()


def was_saved(path: str) -> bool:
    """Whether a document was written there, by this process."""
    return path in _saved


def save_json(document: dict[str, Any], path: str) -> None:
    """Write a document; `-` is standard output. A reader never sees half of it. Raises RunFailed."""
    text = json.dumps(document, indent=2) + "\n"
    try:
        if path == "-":
            write_output(text)
        else:
            save_text(text, Path(path))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RunFailed(f"--json {path}: {error.strerror}") from error
    _saved.add(path)


def write_output(text: str) -> None:
    """Write to standard output, all of it. Raises OSError.

    Where it cannot be written, or a signal came while nobody read it, nothing more is tried.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (OSError, Cancelled):
        drop_output()
        raise


def drop_output() -> None:
    """Nothing more goes to standard output, at the interpreter's end neither."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def can_be_made(target: Path) -> None:
    """Raises OSError where `save_text` could not make its file."""
    beside = _beside(target.resolve())
    os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    beside.unlink()


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}")


def save_text(text: str, target: Path) -> None:
    """Write a text file whole: a reader sees the old one or the new one. A link is followed.

    Raises OSError, FileExistsError for what is there and is no regular file.
    """
    target = target.resolve()
    if target.exists() and not target.is_file():
        raise FileExistsError(errno.EEXIST, "is not a regular file", str(target))
    beside = _beside(target)
    try:
        beside.write_text(text)
        beside.replace(target)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
