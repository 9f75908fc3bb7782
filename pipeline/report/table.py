"""The tables that a command prints: a row a run in QEMU's columns, and what they leave out in lines below."""

from __future__ import annotations

from guestmem.units import show_size
from pipeline.report.columns import CHANNELS, COLUMNS, MEASURED, Column, Result, method_of
from pipeline.report.markdown import table

BEST = "*"


def render_table(results: list[Result]) -> str:
    """A row a result. Of several that completed, the best of each column is marked."""
    best = {column.title: _best(column, results) for column in MEASURED}
    rows = [["method", *(column.title for column in COLUMNS)]]
    for result in results:
        cells = [method_of(result), CHANNELS.show(result)]
        for column in MEASURED:
            marked = result in best[column.title]
            cells.append(column.show(result) + (BEST if marked else " " * len(BEST) * (len(results) > 1)))
        rows.append(cells)
    return table(rows)


def _best(column: Column, results: list[Result]) -> list[Result]:
    """Who has the best value of a column; nobody where there is nothing to compare."""
    ended = [one for one in results if one["status"] == "completed" and column.value(one) is not None]
    if len(ended) < 2 or not column.better:
        return []
    shown = {id(one): float(column.show(one)) for one in ended}
    top = max(column.better * value for value in shown.values())
    return [one for one in ended if column.better * shown[id(one)] == top]


def render_runs(results: list[Result]) -> str:
    """The table of several runs, what became of those that did not complete, and what was learnt."""
    lines = [render_table(results), ""]
    if any(_best(column, results) for column in MEASURED):
        lines.append(f"{BEST} the best of its column")
    for result in results:
        if result["status"] != "completed":
            lines.append(f"{method_of(result)}: {result['status']}: {result['error']}")
    lines += _verified_ones(results)
    for result in results:
        if result["auto"] is not None and result["status"] == "completed":
            lines += _chosen(result)
    lines += _learnt(results)
    return "\n".join(lines)


def _verified_ones(results: list[Result]) -> list[str]:
    """What was checked of the copies: one line for all that ended alike."""
    said: dict[str, list[str]] = {}
    for one in results:
        if one["status"] == "completed":
            said.setdefault(_verified(one), []).append(method_of(one))
    if len(said) == 1 and len(results) > 1:
        how, names = said.popitem()
        return [f"{len(names)} of {len(results)} runs completed, {how}"]
    return [f"{', '.join(names)}: completed, {how}" for how, names in said.items()]


NEXT = (
    "Next: a guest that you keep (python -m tools.dirtyrate --create web), two hosts (python -m "
    "pipeline.recv and send), a QAT device (python -m tools.doctor), links (python -m tools.compare quick)."
)


def _learnt(results: list[Result]) -> list[str]:
    """Which method was the fastest, by how much, at which price, and why; and where to go on."""
    ended = sorted(
        (one for one in results if one["status"] == "completed"), key=lambda one: one["time"]["total_ms"]
    )
    if not ended and all(one["status"] == "not-converged" for one in results):
        return ["Learnt: no method converged; a lower --dirty-rate, a faster link or --converge may help."]
    if not ended:
        return []
    best = ended[0]
    name, took = method_of(best), best["time"]["total_ms"]
    said = f"Learnt: {name} was the fastest, {_show_ms(took)}"
    plain = next((one for one in ended if one["options"]["method"] == "none"), None)
    if plain is not None and plain is not best:
        cpu = _cpu_seconds(best) - _cpu_seconds(plain)
        more = f"{abs(cpu):.2g} {'more' if cpu > 0 else 'fewer'} CPU seconds"
        said += (
            f", {plain['time']['total_ms'] / took:.1f} times as fast as none: "
            f"a ratio of {_ratio(best)} for {more}"
        )
    elif plain is best and len(ended) > 1 and best["options"]["max_bandwidth"]:
        said += ": this wire carries pages faster than the CPUs compress them"
    elif plain is best and len(ended) > 1:
        said += ": nothing limited the wire; compression pays on a link (--max-bandwidth 1Gbit)"
    slower = [one for one in ended[1:] if one is not plain]
    if slower:
        after = slower[0]
        said += f"; {method_of(after)} took {_show_ms(after['time']['total_ms'])}"
    return [f"{said}.", NEXT]


def _show_ms(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1e3:.1f} s"


def _ratio(result: Result) -> str:
    return f"{result['traffic']['compression_ratio'] or 1:.1f}"


def _cpu_seconds(result: Result) -> float:
    return float(result["send"]["cpu_seconds"] + result["recv"]["cpu_seconds"])


KIB = 1024


def _deltas(delta: Result) -> str:
    """What they did, or why there were none."""
    if not delta["based_pages"]:
        return f"deltas: none; {delta['stopped'] or 'no page came back that was kept'}"
    took = show_size(delta["bytes"]) if delta["bytes"] >= KIB else f"{delta['bytes']} bytes"
    seen = delta["based_pages"] + delta["missed_pages"]
    return (
        f"deltas: {delta['pages']} of {seen} pages that came back, in {took}, "
        f"{show_size(delta['saved_bytes'])} less than whole; {show_size(delta['memory_bytes'])} kept, "
        f"{delta['cpu_seconds']:.2f} s of CPU"
        + (f"; stopped: {delta['stopped']}" if delta["stopped"] else "")
    )


def render_summary(result: Result) -> str:
    """The table of one run, with what it leaves out in the lines below."""
    time, traffic, recv = result["time"], result["traffic"], result["recv"]
    prealloc = (
        f"prealloc took {time['prealloc_ms']:.0f} ms before the clock"
        if time["prealloc_ms"] is not None
        else "no prealloc"
    )
    lines = [
        render_table([result]),
        "",
        f"{len(result['rounds'])} rounds, {traffic['guest_megabytes_per_second']:.0f} guest MB/s, "
        f"{traffic['normal_pages']} normal and {traffic['zero_pages']} zero pages, "
        f"peak {traffic['pages_per_second_peak']:.0f} pages/s",
        f"receivers: {recv['minor_faults']} page faults inside the clock ({prealloc})",
    ]
    if result["downtime"] is not None:
        parts = " + ".join(
            f"{name[:-3].replace('_', ' ')} {ms:.1f}" for name, ms in result["downtime"].items()
        )
        lines.append(f"downtime, ms: {parts}")
    if time["returned_switchovers_ms"]:
        before = ", ".join(f"{ms:.1f}" for ms in time["returned_switchovers_ms"])
        lines.append(f"switchovers that took too long, ms: {before}; {time['stood_still_ms']:.1f} in all")
    slowest = result["guest"].get("slowest_second_bytes", {})
    seen = [f"{when} {show_size(amount)}" for when, amount in slowest.items() if amount is not None]
    if seen:
        lines.append(f"guest, bytes written in its slowest second: {', '.join(seen)}")
    if result["auto"] is not None:
        lines += _chosen(result)
    if result["delta"] is not None:
        lines.append(_deltas(result["delta"]))
    qat = result["qat"]
    if qat["hardware_requests"] or qat["software_requests"]:
        where = "SIMULATED hardware" if qat["simulated"] and qat["hardware_requests"] else "hardware"
        lines.append(
            f"QAT: {qat['hardware_requests']} requests in {where}, {qat['software_requests']} in software"
        )
    if result["transport"].get("channels"):
        lines.append(_connections(result["transport"]))
    lines.append(f"{result['status']}, {_verified(result)}")
    return "\n".join(lines)


def _verified(result: Result) -> str:
    images = "by digests" if result["transport"]["kind"] == "tcp" else "byte for byte"
    self_check = "by the guest's self-check"
    kinds = {"invariant": self_check, "both": f"{images} and {self_check}"}
    how = f"verified {kinds.get(result['options']['verify'], images)}"
    return {True: how, False: "NOT the source", None: "not verified"}[result["verified"]]


def _connections(transport: Result) -> str:
    limited = {
        name: sum(channel.get(f"{name}_limited_ms", 0) for channel in transport["channels"])
        for name in ("receiver", "send_buffer")
    }
    limits = [f"{name.replace('_', ' ')} {ms:.0f}" for name, ms in limited.items()]
    tls = "TLS 1.3" if transport["tls"] else "no TLS"
    output = f"; written to {transport['output']}" if transport["output"] else ""
    copied = ""
    if zero_copy := transport["zero_copy"]:
        sent, anyway, unknown = (
            show_size(zero_copy[f"{name}_bytes"]) for name in ("sent", "copied", "unknown")
        )
        copied = f"; {sent} with zero copy, of which the kernel copied {anyway}"
        if zero_copy["unknown_bytes"]:
            copied += f", and did not say of {unknown}"
    return (
        f"to {transport['address']}, {tls}: {transport['reconnections']} reconnections, "
        f"{transport['retransmits']} retransmits; ms limited by: {', '.join(limits)}{copied}{output}"
    )


def _chosen(result: Result) -> list[str]:
    """What method auto did: the share of guest bytes by candidate, and why, in one line."""
    auto, total = result["auto"], result["traffic"]["guest_bytes"]
    compressed = [one for one in auto["candidates"] if one["method"] != "none"]
    plain = total - sum(one["guest_bytes"] for one in compressed)
    shares = [("none", plain)]
    shares += [(f"{one['method']} {one['level']}", one["guest_bytes"]) for one in compressed]
    said = ", ".join(f"{name} {amount / total:.0%}" for name, amount in shares if amount and total)
    return [f"auto, by guest bytes: {said or 'nothing to send'}", _why(auto)]


def _why(auto: Result) -> str:
    """The reason for the row, in one line."""
    if not auto["switches"]:
        return (
            "why: nothing limited the wire, so pages went as they are; compression pays on a link: try "
            "--max-bandwidth 1Gbit, or --method none,zstd,qatzip,auto"
        )
    last, count = auto["switches"][-1], len(auto["switches"])
    pair = f"{last['faster']} and {last['stronger']}"
    switches = f"{count} switch{'es' if count > 1 else ''}, the last at {last['at_ms']:.0f} ms"
    return f"why: {last['reason']} ({pair}; {switches})"
