"""A JSON document into the file that --json names."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from pipeline.errors import RunFailed


def save_json(document: dict[str, Any], path: str) -> None:
    """Write a document; `-` is standard output. A reader never sees half of it. Raises RunFailed."""
    text = json.dumps(document, indent=2) + "\n"
    try:
        if path == "-":
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            _write(text, Path(path))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RunFailed(f"--json {path}: {error.strerror}") from error


def _write(text: str, target: Path) -> None:
    if target.exists() and not target.is_file():
        target.write_text(text)  # a pipe or a terminal
        return
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(target)
