"""Imports point down only, as docs/architecture.md draws them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import ROOT

PACKAGES: dict[str, set[str]] = {
    "guestmem": set(),
    "qat": set(),
    "pipeline": {"guestmem", "qat"},
    "tools": {"pipeline", "guestmem", "qat"},
}

FLOORS = (
    ("run", "send", "recv"),
    ("cli",),
    ("migration", "relay", "forecast"),
    ("transports",),
    ("source", "destination"),
    ("auto",),
    ("codecs",),
    ("packets",),
    ("report", "qemu"),
    ("processes",),
    ("progress", "options"),
    ("policy",),
    ("dirty_curve", "delta_figures"),
    ("net",),
    ("errors",),
)
"""The rooms and files of `pipeline`, from the top. A room uses rooms below it, none above or beside."""

FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imported(file: Path) -> Iterator[str]:
    """Dotted names that a file imports, wherever in it that stands."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_lies_below_them(package: str) -> None:
    allowed = PACKAGES[package] | {package}
    for file in files(package):
        ours = {name.split(".")[0] for name in imported(file)} & {*PACKAGES, "tests"}
        assert ours <= allowed, f"{file.relative_to(ROOT)} imports {sorted(ours - allowed)}"


def test_rooms_of_the_pipeline_import_only_what_lies_below_them() -> None:
    for file in files("pipeline"):
        room = file.relative_to(ROOT / "pipeline").parts[0].removesuffix(".py")
        if room == "__init__" or file.name == "__main__.py":
            continue  # a command: it calls its way in from the top
        for name in imported(file):
            parts = name.split(".")
            if parts[0] != "pipeline" or len(parts) < 2 or parts[1] not in FLOOR_OF or parts[1] == room:
                continue
            assert FLOOR_OF[parts[1]] > FLOOR_OF[room], f"{file.relative_to(ROOT)} imports {name}"


def test_every_file_of_the_pipeline_has_its_floor() -> None:
    rooms = {
        path.name.removesuffix(".py") for path in (ROOT / "pipeline").iterdir() if path.suffix in ("", ".py")
    }
    assert rooms - {"__init__", "__pycache__"} == set(FLOOR_OF)
