"""The folder of one comparison: its scenario, its hosts, and a file for each point that is finished."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.report.files import save_text
from tools.compare.scenario import Point, Scenario

READABLE_VERSIONS = (1, 2)
"""Versions of result documents. They differ in names within `auto` and `transport`: not used here."""

NOT_THE_POINTS = {"repetitions", "title", "hosts"}
"""Keys of a scenario that may change: a point's file is named by its repetition and host."""

Records = dict[str, dict[str, Any]]
"""The host record of each kind of host of a fleet."""


class ResultsFolder:
    """The folder of one comparison. A finished point is a file that is there."""

    def __init__(self, folder: Path, scenario: Scenario, force: bool, *, fleet: bool = False) -> None:
        """Raises UsageError when it holds another comparison, or something else."""
        self.folder = folder
        self.points = folder / "points"
        self._hosts = folder / "hosts.json"
        self._read: dict[str, dict[str, Any]] = {}
        said = {**json.loads(json.dumps(asdict(scenario))), "fleet": fleet}
        kept = folder / "scenario.json"
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--output {folder}: is not a folder")
        if kept.exists():
            before = {"hosts": [], "pairs": None, "fleet": False, **json.loads(kept.read_text())}
            differs = {name for name in said if said[name] != before.get(name)} - NOT_THE_POINTS
            if differs and not force:
                raise UsageError(
                    f"--output {folder}: holds another comparison ({', '.join(sorted(differs))} differ); "
                    "choose another folder, or --force to throw it away"
                )
            if differs:
                for path in (*self.points.glob("*.json"), self._hosts):
                    path.unlink(missing_ok=True)
        elif folder.exists() and any(folder.iterdir()) and not force:
            raise UsageError(f"--output {folder}: is not empty; choose another folder, or --force")
        try:
            self.points.mkdir(parents=True, exist_ok=True)
            save_text(json.dumps(said, indent=2) + "\n", kept)
        except OSError as error:
            raise UsageError(f"--output {folder}: {error.strerror}") from error

    def hosts(self) -> Records:
        """The kinds of host that were there so far."""
        return dict(json.loads(self._hosts.read_text())) if self._hosts.exists() else {}

    def add_hosts(self, records: Records) -> None:
        """Note kinds of host that are there. Raises OSError."""
        save_text(json.dumps({**self.hosts(), **records}, indent=1) + "\n", self._hosts)

    def result(self, point: Point) -> dict[str, Any] | None:
        """A finished point's result, of this version or of one before. Raises UsageError."""
        if point.key in self._read:
            return self._read[point.key]
        path = self.points / f"{point.key}.json"
        if not path.exists():
            return None
        document: dict[str, Any] = json.loads(path.read_text())
        if document["schema_version"] not in READABLE_VERSIONS:
            raise UsageError(
                f"--output {self.folder}: {path.name} has schema_version {document['schema_version']}, and "
                f"this program reads {' and '.join(map(str, READABLE_VERSIONS))}; choose another folder"
            )
        self._read[point.key] = document
        return document

    def is_done(self, point: Point) -> bool:
        """Whether a point needs no run: one whose host failed is tried again. Raises UsageError."""
        result = self.result(point)
        return result is not None and result["status"] != "failed"

    def keep(self, point: Point, result: dict[str, Any]) -> None:
        """Write a point's result, whole or not at all. Raises OSError."""
        save_text(json.dumps(result, indent=1) + "\n", self.points / f"{point.key}.json")
        self._read[point.key] = result
