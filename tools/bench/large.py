"""Guests of 64 GiB and of a terabyte, by arithmetic from what was just measured on this host."""

from __future__ import annotations

from collections.abc import Callable

from guestmem.page import PAGE_BYTES
from pipeline.options import DEFAULT_PACKET_BYTES, DEFAULT_QUEUE_BYTES
from pipeline.processes.memory import PAGE_BOOK_BYTES, worker_bytes
from pipeline.report.markdown import table
from tools.bench.terms import GIB, Terms

SIZES_GIB = (64, 1024)
LINKS_GBIT = (10, 25, 100)
WORKERS = 64
"""Channels, and as many receivers on the other host."""

LIST_BYTES = 4
"""A page of the round's list."""

Value = Callable[[int], str]


def large(terms: Terms, cpus: int) -> str:
    """A table, each term with how it comes about. CPUs are this host's: a large host has more of them."""
    out = [["term", "how", *("1 TiB" if size == 1024 else f"{size} GiB" for size in SIZES_GIB)]]
    for name, how, value in _rows(terms, cpus):
        out.append([name, how, *(value(size) for size in SIZES_GIB)])
    return table(out)


def _rows(terms: Terms, cpus: int) -> list[tuple[str, str, Value]]:
    touch, further = terms["touch_huge_s"], terms["map_huge_s"]
    rows: list[tuple[str, str, Value]] = [
        ("set-up: first touch", f"{touch:.3f} s a GiB on {cpus} CPUs", _of(touch)),
        (
            f"set-up: {WORKERS} workers map it",
            f"{further * 1e3:.2f} ms a GiB each, {cpus} at a time",
            _of(further * WORKERS / cpus),
        ),
        ("memory beside an image", "page tables, lists, queue, workers", lambda size: _memory(terms, size)),
    ]
    for gbit in LINKS_GBIT:
        rows.append((f"round 1 at {gbit} Gbit/s", "raw, the wire full", _at(gbit)))
    if "sync_idle_s" in terms:
        sync, everything = terms["sync_idle_s"], terms["sync_all_s"]
        rows += [
            ("last sync (downtime)", f"{sync * 1e3:.3f} ms a GiB on {cpus} CPUs", _of(sync)),
            ("sync, all dirty", f"{everything * 1e3:.1f} ms a GiB on {cpus} CPUs", _of(everything)),
        ]
    for name, key in (("verification, one host", "compare_s"), ("verification, two hosts", "digest_s")):
        rows.append((name, f"{terms[key] * 1e3:.0f} ms a GiB on {cpus} CPUs", _of(terms[key])))
    return rows


def _at(gbit: int) -> Value:
    return _of(GIB * 8 / (gbit * 1e9))


def _of(seconds_a_gib: float) -> Value:
    return lambda size: _seconds(size * seconds_a_gib)


def _memory(terms: Terms, size_gib: int) -> str:
    """The source's: the guest's own page tables by page, every worker's by huge pages."""
    pages = size_gib * GIB // PAGE_BYTES
    tables = size_gib * (terms["tables_small_bytes"] + (WORKERS + 1) * terms["tables_huge_bytes"])
    rest = (
        pages * (PAGE_BOOK_BYTES + LIST_BYTES)
        + DEFAULT_QUEUE_BYTES
        + WORKERS * worker_bytes(DEFAULT_PACKET_BYTES)
    )
    return f"{(tables + rest) / (size_gib * GIB):.1%}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def terms_table(terms: Terms) -> str:
    """What was measured, a GiB of guest each."""
    out = [["measured, a GiB", "huge pages", "small pages"]]
    for name, key, scale, digits in (
        ("first touch, s", "touch_{}_s", 1.0, 2),
        ("a further mapping, ms", "map_{}_s", 1e3, 2),
        ("its page tables, KiB", "tables_{}_bytes", 1 / 1024, 0),
    ):
        values = (terms[key.format(kind)] * scale for kind in ("huge", "small"))
        out.append([name, *(f"{value:.{digits}f}" for value in values)])
    lines = [table(out), "", f"Of the image {terms['huge_share']:.0%} lay in huge pages."]
    if "sync_private_bytes" in terms:
        private = terms["sync_private_bytes"] / 1024
        lines.append(f"A sync of a guest of which all is dirty took {private:.0f} KiB of memory a GiB.")
    lines.append(
        f"A slot number, with {terms['waiters']:.0f} processes waiting for one, cost "
        f"{terms['number_s'] * 1e6:.1f} us of CPU."
    )
    return "\n".join(lines)
