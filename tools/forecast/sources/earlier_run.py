"""A guest as an earlier run saw it, from its result document: nothing is looked at, nothing compressed.

A round tells how many pages were dirty after so long, and what its pages came to on the wire; the run as a
whole what CPU a byte of them cost. So only the methods that were run can be forecast.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from guestmem.page import PAGE_BYTES
from pipeline.auto.chooser import RECEIVE_NS, SEND_NS
from pipeline.codecs import METHODS
from pipeline.errors import UsageError
from pipeline.forecast.beside import SCAN_NS
from pipeline.forecast.seen import Seen
from pipeline.forecast.situation import Batches, Candidate, Guest, Host
from pipeline.options import MAX_RAM_BYTES
from pipeline.progress import Progress
from pipeline.report.document import SCHEMA_VERSION
from tools.forecast.sources.curve_file import MOST_CPUS, MOST_FILE_BYTES
from tools.forecast.sources.curve_points import CurveError, curve_of, merged, number, rounds_seen, text_of
from tools.forecast.sources.seen import Typed

Result = dict[str, Any]
SAMPLES = 1 << 50
NOT_MODELLED = {
    "auto": "it chooses by its link, so over another one it would choose otherwise",
    "qatzip": "a QAT device is not modelled",
}
OPTIONS = ("image", "fill", "filled", "dirty_rate", "dirty_pattern", "dirty_content", "write_bytes")


@dataclass(frozen=True)
class EarlierRun:
    """What its document says, checked."""

    seen: Seen
    typed: Typed

    def look(self, progress: Progress) -> Seen:
        """It was looked at already."""
        return self.seen


def read_result(option: str, path: Path) -> EarlierRun:
    """A result document of one run or of several. Raises UsageError."""
    try:
        return _of_document(json.loads(text_of(path, "result of a run", MOST_FILE_BYTES)))
    except CurveError as error:
        raise UsageError(f"{option} {path}: {error}") from error
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{option} {path}: is no result of pipeline.run or pipeline.send") from error


def _of_document(document: Any) -> EarlierRun:
    """Raises CurveError, and KeyError and the like for what is no result."""
    version = document.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION and ("runs" in document or "rounds" in document):
        raise CurveError(f"schema_version {version!a}: this version reads {SCHEMA_VERSION}; run it again")
    runs: list[Result] = document.get("runs", [document])
    with_rounds = [one for one in runs if one.get("rounds")]
    if not with_rounds:
        raise CurveError(f"no round in it ({runs[0]['status'] if runs else 'no run'}): nothing to learn from")
    sizes = {_size_bytes(one) for one in with_rounds}
    if len(sizes) > 1:
        raise CurveError("runs of guests of several sizes: keep one")
    usable = [one for one in with_rounds if one["options"]["method"] not in NOT_MODELLED]
    if not usable:
        method = str(with_rounds[0]["options"]["method"])
        raise CurveError(f"only method {method} was run: {NOT_MODELLED[method]}")
    ram_pages = sizes.pop() // PAGE_BYTES
    measured = _candidates(usable)
    guest, notes = _guest(with_rounds, ram_pages), _notes(with_rounds, measured)
    return EarlierRun(
        Seen(guest, _host(with_rounds), notes=notes, measured=measured),
        Typed(_run_options(usable[0]["options"])),
    )


def _size_bytes(run: Result) -> int:
    return int(number(run["options"]["size_bytes"], "size_bytes", PAGE_BYTES, MAX_RAM_BYTES))


# -------------------------------------------------------------------- the guest


def _guest(runs: list[Result], ram_pages: int) -> Guest:
    first = [one["rounds"][0] for one in runs]
    later = [each for one in runs for each in one["rounds"][1:]]
    points = merged([point for one in runs for point in rounds_seen(one["rounds"])])
    if not points:
        raise CurveError("no round with the guest running was whole: it does not tell how the guest writes")
    syncs = [(one.get("downtime") or {}).get("last_sync_ms") for one in runs]
    known = [number(one, "last_sync_ms", 0, 1e6) for one in syncs if one is not None]
    return Guest(
        ram_pages,
        _zero_share(first),
        _zero_share(later),
        curve_of(points, ram_pages),
        median(known) if known else 1.0,
    )


def _zero_share(rounds: list[Result]) -> float:
    pages = _sum(rounds, "pages")
    return min(1.0, _sum(rounds, "zero_pages") / pages) if pages else 0.0


def _sum(rounds: list[Result], name: str) -> float:
    return sum(number(one[name], name, 0, SAMPLES) for one in rounds)


def _host(runs: list[Result]) -> Host:
    """Both sides' CPUs, as the first run says."""
    there = runs[0]["transport"].get("receiver_host") or runs[0]["host"]
    one_host = all(one["transport"]["kind"] == "queue" for one in runs)
    return Host(_cpus(runs[0]["host"]), _cpus(there), one_host)


def _cpus(host: Result) -> float:
    quota = host.get("cpu_quota")
    return number(host["cpus"] if quota is None else quota, "cpus", 0.01, MOST_CPUS)


# -------------------------------------------------------------------- the methods


def _name(run: Result) -> tuple[str, int | None]:
    options = run["options"]
    method = str(options["method"])
    if method not in METHODS:
        raise CurveError(f"method {ascii(method)[:40]}: unknown here")
    level = options.get("level")
    if level is None or not METHODS[method].levels:
        return method, None
    return method, int(number(level, "level", -1000, 1000))


def _candidates(runs: list[Result]) -> tuple[Candidate, ...]:
    """Each method and level, with all of its runs."""
    found = []
    for _, group in groupby(sorted(runs, key=_order), _order):
        same = list(group)
        whole = [row for run in same for row in _rows(run, run["rounds"][:1])]
        written = [row for run in same for row in _rows(run, run["rounds"][1:])]
        found.append(Candidate(*_name(same[0]), _batches(whole), _batches(written)))
    return tuple(found)


def _order(run: Result) -> tuple[str, int]:
    method, level = _name(run)
    return method, level or 0


def _batches(rows: list[tuple[float, float, float, float]]) -> Batches:
    return Batches(*np.array(rows, np.float64).reshape(-1, 4).T)


def _rows(run: Result, rounds: list[Result]) -> list[tuple[float, float, float, float]]:
    """Plain bytes, bytes on the wire, and CPU ns of both sides of each round with normal pages. What every
    method costs beside the codec is the model's own, and is taken off."""
    every = run["rounds"]
    plain, scanned = _sum(every, "normal_pages") * PAGE_BYTES, _sum(every, "pages") * PAGE_BYTES
    if not plain:
        return []
    send = number(run["send"]["cpu_seconds"], "send cpu_seconds", 0, 1e9) * 1e9
    recv = number(run["recv"]["cpu_seconds"], "recv cpu_seconds", 0, 1e9) * 1e9
    compress_ns = max(0.0, send - SEND_NS * plain - SCAN_NS * scanned) / plain
    decompress_ns = max(0.0, recv - RECEIVE_NS * plain) / plain
    found = []
    for one in rounds:
        of_round = _sum([one], "normal_pages") * PAGE_BYTES
        if of_round:
            wire = _sum([one], "wire_bytes")
            found.append((of_round, wire, compress_ns * of_round, decompress_ns * of_round))
    return found


# -------------------------------------------------------------------- in words


def _notes(runs: list[Result], measured: tuple[Candidate, ...]) -> tuple[str, ...]:
    left_out = sorted({str(one["options"]["method"]) for one in runs} & NOT_MODELLED.keys())
    names = ", ".join(one.name for one in measured)
    return (
        f"from an earlier run: only what was run is forecast ({names}), by the CPU a byte of that host",
        *(f"{name} was run and is left out: {NOT_MODELLED[name]}" for name in left_out),
    )


def _run_options(options: Result) -> str:
    """The guest of that run, to be typed again."""
    if options.get("attach") is not None:
        return shlex.join(["--attach", str(options["attach"])])
    words = [] if options.get("image") is not None else ["--size", str(options["size_bytes"])]
    named = [name for name in ("preset", "phases") if options.get(name) is not None]
    for name in (*(named or OPTIONS[3:]), *OPTIONS[:3], "seed"):
        value = options.get(name)
        of_image = options.get("image") is not None and name in ("fill", "filled")
        if value is not None and not of_image:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)
