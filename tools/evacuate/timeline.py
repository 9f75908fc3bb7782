"""A plan as text."""

from __future__ import annotations

from typing import Any

BAR_COLUMNS = 40
MOST_ROWS = 200


def timeline(document: dict[str, Any]) -> str:
    """The figures, the baselines beside, and a row a migration."""
    return "\n\n".join([_figures(document), _baselines(document), _rows(document)])


def seconds_text(seconds: float) -> str:
    """`45.2 s`, `12:30 min`, `3:05 h`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours}:{minutes_left:02} h" if hours else f"{minutes}:{rest:02} min"


def _figures(document: dict[str, Any]) -> str:
    count = len(document["migrations"])
    lines = [
        document["title"],
        f"{count} VMs in {seconds_text(document['total_seconds'])}; no plan with these destinations and "
        f"methods is shorter than {seconds_text(document['bound']['seconds'])} ({document['bound']['by']}).",
        f"Sum of all migrations {seconds_text(document['sum_seconds'])}, "
        f"{document['cpu_hours']:.3g} CPU-hours, {document['wire_bytes'] / 1e9:.3g} GB on the wire.",
    ]
    if document["exact_seconds"] is not None:
        lines.append(f"The best plan with constant shares takes {seconds_text(document['exact_seconds'])}.")
    draws = document["draws"]
    if draws is not None:
        total = draws["total_seconds"]
        lines.append(
            f"Of {draws['count']} draws the middle 80 % take {seconds_text(total['low'])} to "
            f"{seconds_text(total['high'])}."
        )
    if document["deadline_seconds"] is not None:
        chance = document["chance_to_keep_deadline"]
        kept = "kept" if document["keeps_deadline"] else "not kept"
        sure = "" if chance is None else f"; kept in {chance:.1%} of the draws"
        lines.append(f"The deadline of {seconds_text(document['deadline_seconds'])} is {kept}{sure}.")
    if document["left"]:
        names = ", ".join(document["left"][:10])
        lines.append(f'Not to be moved, since they do not converge: {names}. Try converge = "throttle".')
    return "\n".join(lines)


def _baselines(document: dict[str, Any]) -> str:
    lines = [
        "| schedule | total s | sum of migrations s | CPU-hours | above the bound | left |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in {"this plan": document, **document["baselines"]}.items():
        left = one["left"] if isinstance(one["left"], int) else len(one["left"])
        lines.append(
            f"| {name} | {one['total_seconds']:.1f} | {one['sum_seconds']:.1f} | {one['cpu_hours']:.3g} | "
            f"{one['distance_to_bound']:.1%} | {left} |"
        )
    return "\n".join(lines)


def _once_more(one: dict[str, Any]) -> str:
    """Of a VM whose first try comes before: it does not converge."""
    return (
        "; the second try, alone and throttled: the first one does not converge"
        if one["attempts"] > 1
        else ""
    )


def _rows(document: dict[str, Any]) -> str:
    total = document["total_seconds"] or 1.0
    migrations = document["migrations"]
    width = max(len(one["vm"]) for one in migrations)
    lines = []
    for one in migrations[:MOST_ROWS]:
        first = round(one["start_seconds"] / total * BAR_COLUMNS)
        bar = max(1, round((one["end_seconds"] - one["start_seconds"]) / total * BAR_COLUMNS))
        first = min(first, BAR_COLUMNS - bar)
        picture = f"{' ' * first}{'=' * bar}".ljust(BAR_COLUMNS)
        limit = one["max_bandwidth_bytes_per_second"]
        limited = "" if limit is None else f", at most {limit / 1e6:.0f} MB/s"
        level = "" if one["level"] is None else f" {one['level']}"
        lines.append(
            f"{one['start_seconds']:8.1f} {one['end_seconds']:8.1f} s |{picture}| {one['vm']:{width}} "
            f"{one['from']} -> {one['to']}  {one['method']}{level}, {one['channels']} channels{limited}; "
            f"downtime {one['downtime_ms']:.0f} ms{_once_more(one)}"
        )
    if len(migrations) > MOST_ROWS:
        lines.append(f"... and {len(migrations) - MOST_ROWS} more; --json and --html have them all")
    return "\n".join(lines)
