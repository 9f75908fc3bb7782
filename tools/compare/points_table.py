"""The points as a table that one can query: a line a point, as CSV and, with pyarrow, as Parquet.

Both have the same columns in the same order. What a point does not have is an empty cell, or null.
"""

from __future__ import annotations

import csv
import datetime
import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tools.compare.scenario import Point

PARQUET = "points.parquet"
WITHOUT_PYARROW = f"{PARQUET} is not written: pyarrow is not here (pip install 'ramferry[fleet]')"

FIGURES: dict[str, dict[str, str]] = {
    "time": dict.fromkeys(("total_ms", "downtime_ms", "prealloc_ms"), "float64"),
    "traffic": {
        **dict.fromkeys(("guest_bytes", "wire_bytes"), "int64"),
        **dict.fromkeys(("compression_ratio", "throughput_mbps", "pages_per_second_mean"), "float64"),
    },
    "send": {"cpu_seconds": "float64", "cpu_percent": "float64", "minor_faults": "int64"},
    "recv": {"cpu_seconds": "float64", "cpu_percent": "float64", "minor_faults": "int64"},
    "qat": {"hardware_requests": "int64", "software_requests": "int64", "simulated": "bool"},
}
"""The figures of a result document, by group, with their Arrow types."""

KINDS_OF_FIELDS = {"int": "int64", "int | None": "int64", "bool": "bool", "str": "string"}

Entry = dict[str, Any]
"""`{"point": fields of a Point, "result": its result document}`."""


@dataclass(frozen=True)
class Column:
    """A column: its name, its Arrow type, and where a point has it."""

    name: str
    kind: str
    value: Callable[[Entry], Any]


def _of_point(name: str) -> Callable[[Entry], Any]:
    return lambda entry: entry["point"].get(name)


def _of_result(group: str, key: str) -> Callable[[Entry], Any]:
    return lambda entry: (entry["result"].get(group) or {}).get(key)


def _rounds(entry: Entry) -> int | None:
    rounds = entry["result"].get("rounds")
    return None if rounds is None else len(rounds)


COLUMNS = (
    *(Column(one.name, KINDS_OF_FIELDS[str(one.type)], _of_point(one.name)) for one in fields(Point)),
    Column("status", "string", lambda entry: entry["result"]["status"]),
    Column("rounds", "int64", _rounds),
    Column("measured_at", "timestamp", lambda entry: entry["result"]["measured_at"]),
    *(
        Column(f"{group}_{key}", kind, _of_result(group, key))
        for group, keys in FIGURES.items()
        for key, kind in keys.items()
    ),
    Column("error", "string", lambda entry: entry["result"].get("error")),
)


def csv_text(document: dict[str, Any]) -> str:
    """The points as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.name for column in COLUMNS])
    writer.writerows([column.value(entry) for column in COLUMNS] for entry in document["points"])
    return out.getvalue()


def has_parquet() -> bool:
    """Whether this Python can write Parquet."""
    try:
        importlib.import_module("pyarrow.parquet")
    except ImportError:
        return False
    return True


def write_parquet(document: dict[str, Any], target: Path) -> None:
    """The points as a Parquet file, whole or not at all. Raises OSError, ImportError."""
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    kinds = {"timestamp": arrow.timestamp("ms", tz="UTC")}
    arrays = {
        column.name: arrow.array(
            [_typed(column.kind, column.value(entry)) for entry in document["points"]],
            kinds.get(column.kind) or getattr(arrow, column.kind.replace("bool", "bool_"))(),
        )
        for column in COLUMNS
    }
    beside = target.with_name(f".{target.name}.new")
    try:
        parquet.write_table(arrow.table(arrays), beside)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _typed(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind == "timestamp":
        return datetime.datetime.fromisoformat(value)
    return {"int64": int, "float64": float, "bool": bool, "string": str}[kind](value)
