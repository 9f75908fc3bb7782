"""`--published`: every published row beside the model's, as text and as a document."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pipeline.report.markdown import table
from tools.forecast.profiles import raw_profile
from tools.forecast.published.calibration import Calibrated, calibrated, rows_used
from tools.forecast.published.choices import Choices, other_choices
from tools.forecast.published.compared import (
    LARGE,
    SMALL,
    TIE,
    Compared,
    Errors,
    Ranking,
    errors_of,
    ranking,
)
from tools.forecast.published.others import NAMES, OtherTable, other_table
from tools.forecast.published.thread import calibration_of, thread_rows

HOSTS = {"bytedance": "bytedance-thread", "intel": "intel-thread"}
TITLES = "table | channels | method | published s | modelled s | error | send CPU % | recv CPU % | note"


def published() -> tuple[dict[str, Any], str]:
    """The document and the text."""
    hosts = {name: calibrated(raw_profile(file)) for name, file in HOSTS.items()}
    thread = thread_rows(hosts)
    choices = other_choices(hosts)
    others = [other_table(name) for name in NAMES]
    document = {
        "label": "modelled",
        "calibrated_on": rows_used(calibration_of(hosts)),
        "profiles": {HOSTS[name]: _figures(one) for name, one in hosts.items()},
        "thread": _record(thread),
        "other_choices_of_rows": asdict(choices),
        "others": {
            one.name: {
                "title": one.title,
                "source": one.source,
                **_record(one.rows),
            }
            for one in others
        },
    }
    parts = [
        "The thread of QEMU's QATzip series, v4; modelled from 4 of its rows",
        _table(thread),
        _errors_words(errors_of(thread)),
        _ranks_words(_ranks(thread)),
        _choices_words(choices),
        *(_figures_words(HOSTS[name], one) for name, one in hosts.items()),
        *(words for one in others for words in _other_words(one)),
    ]
    return document, "\n\n".join(parts)


def _record(rows: list[Compared]) -> dict[str, Any]:
    errors = errors_of(rows)
    return {
        "rows": [row.record() for row in rows],
        "errors": None if errors is None else asdict(errors),
        "ranking": [asdict(rank) for rank in _ranks(rows)],
    }


def _figures(host: Calibrated) -> dict[str, Any]:
    profile = host.profile
    return {
        "title": profile.title,
        "source": profile.source,
        "normal_bytes": host.normal_bytes,
        "wire_shares": host.wire_shares,
        "codecs": [asdict(one) for one in profile.codecs],
        "qat": None if profile.qat is None else asdict(profile.qat),
    }


def _ranks(rows: list[Compared]) -> list[Ranking]:
    names = dict.fromkeys(row.table for row in rows)
    return [ranking(name, [row for row in rows if row.table == name]) for name in names]


def _table(rows: list[Compared]) -> str:
    return table([[title.strip() for title in TITLES.split("|")], *(_line(row) for row in rows)])


def _line(row: Compared) -> list[str]:
    found, error = row.modelled, row.error
    return [
        *(row.table, str(row.channels), row.method, f"{row.total_ms / 1e3:.2f}"),
        "-" if found is None else f"{found.total_ms / 1e3:.2f}",
        "-" if error is None else f"{error:+.1%}",
        _cpu(row.send_cpu, None if found is None else found.send_cpu),
        _cpu(row.recv_cpu, None if found is None else found.recv_cpu),
        row.use or ("not modelled" if row.why else ""),
    ]


def _cpu(given: float | None, found: float | None) -> str:
    return " / ".join("-" if value is None else f"{value:.0f}" for value in (given, found))


def _errors_words(errors: Errors | None) -> str:
    if errors is None:
        return "No row is modelled."
    return (
        f"Error of the total time, {errors.rows} rows used for nothing else: median {errors.median:.1%}, "
        f"worst {errors.worst:.0%}; {errors.within_8_percent} within {SMALL:.0%}, "
        f"{errors.within_25_percent} within {LARGE:.0%}. CPU is published / modelled."
    )


def _ranks_words(ranks: list[Ranking]) -> str:
    lines = [f"Order of the rows of a table (closer than {TIE:.0%} is a tie):"]
    for one in ranks:
        wrong = "" if not one.wrong else "; not as published: " + ", ".join(one.wrong)
        lines.append(
            f"- {one.table}: {one.right} pairs of {one.right + len(one.wrong)} right, {one.ties} ties{wrong}"
        )
    return "\n".join(lines)


def _choices_words(choices: Choices) -> str:
    return (
        f"Calibrated on any other four rows of the same kinds ({choices.possible} of {choices.tried} choices "
        f"tell what is needed): median {choices.best_median:.1%} to {choices.worst_median:.1%}; at most "
        f"{choices.most_outside_25_percent} of the rest outside {LARGE:.0%}."
    )


def _figures_words(name: str, host: Calibrated) -> str:
    qat = host.profile.qat
    assert qat is not None
    return (
        f"{name}: QAT devices {qat.devices}, each of {qat.device_bytes_per_second / 1e9:.2f} GB/s, "
        f"{qat.latency_us:.0f} us a packet beside that; {host.normal_bytes / 1e9:.1f} GB of normal pages. "
        "All modelled."
    )


def _other_words(one: OtherTable) -> list[str]:
    reasons = dict.fromkeys(f"- {row.method}: {row.why}" for row in one.rows if row.why)
    missing = ["Not modelled:\n" + "\n".join(reasons)] if reasons else []
    return [
        f"{one.title}, which nothing was calibrated on",
        *(_table(one.rows), _errors_words(errors_of(one.rows)), _ranks_words(_ranks(one.rows)), *missing),
    ]
