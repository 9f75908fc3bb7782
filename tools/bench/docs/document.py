"""docs/measurements.md: sections between HTML comments, of which each can be measured by itself."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.report.files import save_text

NAME = "measurements.md"
HEAD = """# Measurements

Made by one command, `python -m tools.bench --suite docs`; `--help` tells of `--size`, `--repeat` and
`--sections`. Each section says when, on which CPU and with which command it was measured: compare figures
only within a section. Unless a section says otherwise, 15/16 of a guest's RAM hold the files of `--fill`
(default: the files of this Python), and the rest is zero. Units: K, M and G are powers of 1024; MB and Mbit
are powers of 1000.
"""
MARK = re.compile(r"^<!-- section: ([\w-]+) -->\n", re.MULTILINE)


class Measurements:
    """The page. Sections that are not replaced keep their text, also those that nobody here knows."""

    def __init__(self, folder: Path, order: list[str]) -> None:
        """Reads what is there. Raises UsageError where it cannot be read or the folder be made."""
        self._path = folder / NAME
        self._order = order
        try:
            folder.mkdir(parents=True, exist_ok=True)
            text = self._path.read_text() if self._path.exists() else ""
        except OSError as error:
            raise UsageError(f"--output {folder}: {error.strerror}") from error
        _, *parts = MARK.split(text)
        self.sections = {
            name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True) if body.strip()
        }

    def put(self, name: str, text: str) -> None:
        """Replace a section and write the page. Raises OSError."""
        self.sections[name] = text.strip()
        known = [one for one in self._order if one in self.sections]
        others = [one for one in self.sections if one not in known]
        bodies = [f"<!-- section: {one} -->\n{self.sections[one]}\n" for one in [*known, *others]]
        titles = [self.sections[one].splitlines()[0].lstrip("# ") for one in [*known, *others]]
        contents = "".join(f"- [{title}](#{_anchor(title)})\n" for title in titles)
        save_text("\n".join([HEAD, contents, *bodies]), self._path)


def _anchor(title: str) -> str:
    """As GitHub makes it: lower case, no punctuation, dashes for spaces."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
