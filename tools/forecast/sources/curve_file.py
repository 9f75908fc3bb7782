"""A dirty curve from a file: of `tools.dirtyrate`, `tools.forecast` or a run, a plain JSON, or CSV."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from guestmem.page import PAGE_BYTES
from pipeline.errors import UsageError
from pipeline.forecast.look import look as look_at
from pipeline.forecast.seen import Seen
from pipeline.forecast.situation import CurveSamples, Guest, Host
from pipeline.options import GuestOptions
from pipeline.processes.cgroup import usable_cpus
from pipeline.processes.signals import signals_cancel
from pipeline.processes.supervisor import Supervisor
from pipeline.progress import Progress
from tools.forecast.sources.curve_points import (
    CurveError,
    Points,
    curve_of,
    merged,
    number,
    rounds_seen,
    samples,
    text_of,
)
from tools.forecast.sources.own_guest import made
from tools.forecast.sources.seen import Typed

MOST_FILE_BYTES = 64 << 20
MOST_CPUS = 4096
OWN_KEYS = frozenset({"seconds", "pages", "ram_bytes", "written_zero_share", "cpus"})
FORMS = (
    "JSON of tools.dirtyrate, tools.forecast or a run, {seconds: [...], pages: [...]}, or CSV seconds,pages"
)


@dataclass(frozen=True)
class CurveFile:
    """What a file says: a curve, and of whose RAM; of the pages that are written how many are zero, and what
    the guest keeps busy, where it says that."""

    points: Points
    ram_bytes: int | None = None
    written_zero_share: float | None = None
    cpus: float = 0.0


def read_curve(option: str, path: Path, ram_bytes: int) -> tuple[CurveFile, CurveSamples]:
    """A file, and its curve of a guest of this RAM. Raises UsageError."""
    try:
        found = _parsed(text_of(path, "dirty curve", MOST_FILE_BYTES))
        return found, curve_of(found.points, ram_bytes // PAGE_BYTES)
    except CurveError as error:
        raise UsageError(f"{option} {path}: {error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{option} {path}: is not text; give {FORMS}") from error
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be read ({error.strerror})") from error


def _parsed(text: str) -> CurveFile:
    """Raises CurveError."""
    if not text.lstrip().startswith(("{", "[")):
        return CurveFile(_csv(text))
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CurveError(f"is no JSON ({type(error).__name__})") from error
    try:
        return _of_document(found)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CurveError(f"is no dirty curve; give {FORMS}") from error


def _of_document(found: Any) -> CurveFile:
    """Whichever of our documents it is, or the plain form. Raises KeyError, TypeError, CurveError."""
    if len(found.get("runs", ())) > 1:
        raise CurveError("holds several runs: keep one of them, or give it as --result")
    if "runs" in found:
        (found,) = found["runs"]
    if "forecasts" in found:
        guest = found["guest"]
        return _plain(
            {
                **guest["curve"],
                "ram_bytes": guest["ram_bytes"],
                "written_zero_share": guest["written_zero_share"],
                "cpus": guest["cpus"],
            }
        )
    if "rounds" in found:
        return CurveFile(merged(rounds_seen(found["rounds"])), found["options"]["size_bytes"])
    if "curve" in found:
        return CurveFile([_of_row(row) for row in found["curve"]], found["size_bytes"])
    return _plain(found)


def _of_row(row: dict[str, Any]) -> tuple[float, tuple[int, ...]]:
    """A point of `tools.dirtyrate`, which keeps three of its samples."""
    names = ("pages_min", "pages_median", "pages_max") if row["samples"] > 1 else ("pages_median",)
    return float(row["seconds"]), samples([row[name] for name in names], "pages")


def _plain(found: dict[str, Any]) -> CurveFile:
    unknown = sorted(found.keys() - OWN_KEYS)
    if unknown:
        raise CurveError(f"{unknown[0][:40]!a}: unknown; there are {', '.join(sorted(OWN_KEYS))}")
    times, pages = found["seconds"], found["pages"]
    if not isinstance(times, list) or not isinstance(pages, list) or len(times) != len(pages):
        raise CurveError("seconds and pages must be lists of one length")
    ram, zero, cpus = (found.get(name) for name in ("ram_bytes", "written_zero_share", "cpus"))
    return CurveFile(
        [
            (number(at, "seconds", 0, float("inf")), samples(one, "pages"))
            for at, one in zip(times, pages, strict=True)
        ],
        None if ram is None else int(number(ram, "ram_bytes", PAGE_BYTES, 2**62)),
        None if zero is None else number(zero, "written_zero_share", 0, 1),
        0.0 if cpus is None else number(cpus, "cpus", 0, MOST_CPUS),
    )


def _csv(text: str) -> Points:
    """Lines `seconds,pages`; several of one time are its samples. Raises CurveError."""
    by_time: dict[float, list[int]] = {}
    try:
        lines = [line for line in csv.reader(text.splitlines()) if line]
    except csv.Error as error:
        raise CurveError(f"is no CSV ({error})") from error
    if lines and [cell.strip() for cell in lines[0]] == ["seconds", "pages"]:
        del lines[0]
    for count, line in enumerate(lines, 1):
        try:
            at, pages = (float(cell) for cell in line)
        except ValueError as error:
            raise CurveError(f"line {count} is not two numbers, seconds,pages; give {FORMS}") from error
        key = number(at, f"line {count}, seconds", 0, float("inf"))
        by_time.setdefault(key, []).extend(samples(pages, f"line {count}, pages"))
    return [(at, tuple(found)) for at, found in by_time.items()]


# -------------------------------------------------------------------- as a source


@dataclass(frozen=True)
class StillGuest:
    """RAM that is made, of a guest whose dirty curve is known: nobody writes to it here."""

    options: GuestOptions
    file: CurveFile
    curve: CurveSamples
    path: str

    @property
    def typed(self) -> Typed:
        return Typed(is_vm=True)

    def look(self, progress: Progress) -> Seen:
        """What RAM holds. Raises FerryError."""
        with Supervisor() as supervisor, signals_cancel(supervisor):
            link = made(supervisor, self.options, progress)
            # Nobody writes, so there is nothing to wait for.
            seen = look_at(link.source, link.log, link.pid, lambda seconds: None)
        host = Host(usable_cpus(), usable_cpus(), one_host=False)
        return Seen(self._guest(seen.guest), host, seen.whole, seen.whole, notes=self._notes())

    def _guest(self, seen: Guest) -> Guest:
        share = self.file.written_zero_share
        return replace(
            seen,
            written_zero_share=seen.zero_share if share is None else share,
            curve=self.curve,
            cpus=self.file.cpus,
        )

    def _notes(self) -> tuple[str, ...]:
        note = f"dirty curve of {self.path}; what is written is taken to hold what all of RAM does"
        other = self.file.ram_bytes not in (None, self.options.size_bytes)
        size = f"the curve is of a guest of {self.file.ram_bytes} bytes, RAM has {self.options.size_bytes}"
        return (note, size) if other else (note,)
