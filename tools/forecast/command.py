"""The command `forecast`: a look at a guest or a VM, the forecast, the advice; or the score of many."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

from guestmem.page import PAGE_BYTES
from pipeline.cli.link_probe import measured as measured_link
from pipeline.cli.main import Command, show
from pipeline.cli.values import Given
from pipeline.codecs import METHODS
from pipeline.errors import RunFailed
from pipeline.forecast.beside import beside_here
from pipeline.forecast.sample import candidates
from pipeline.forecast.seen import Seen
from pipeline.forecast.situation import Candidate, Plan
from pipeline.progress import Progress, open_progress
from pipeline.report.files import save_json, save_text
from pipeline.source.delta_budget import RAM_PART
from tools.forecast.advice import Question, answers, by_link, limit_notes
from tools.forecast.commands import commands
from tools.forecast.findings import SCHEMA_VERSION, Findings
from tools.forecast.host import Method
from tools.forecast.page import page
from tools.forecast.published.report import published
from tools.forecast.request import Request, build_parser, read
from tools.forecast.score_folder import score_folder
from tools.forecast.sources.seen import Source

METHODS_ASKED: tuple[tuple[str, int | None], ...] = (
    *(("none", None), ("lz4", 1), ("isal", 1)),
    *(("zstd", level) for level in (1, 3, 5)),
)


def _find(request: Request, source: Source, progress: Progress) -> Findings:
    """Look, compress, forecast. Raises FerryError."""
    plan, rate = request.plan, None
    if request.probed is not None:
        plan, rate = measured_link(plan, request.probed, max(request.channels), progress, "--bandwidth")
    seen = source.look(progress)
    other = request.other_host
    measured = _measured(request, seen, progress)
    saved = other.save(measured, seen.host.cpus)
    zlib = functools.partial(_compressed, [("zlib", 1)], request, seen)
    tried = tuple(other.candidates(measured, zlib))
    plan = _with_deltas(_on_this_host(other.plan(plan), seen, source), seen, source)
    question = Question(
        *(seen.guest, tried, other.host(seen.host), plan, request.channels), of_vm=source.typed.is_vm
    )
    found = answers(question)
    blocks = commands(found, source.typed, question.plan)
    seen = replace(seen, notes=(*seen.notes, *limit_notes(question), *other.notes(), *saved))
    return Findings(
        *(question, seen, found, by_link(question), blocks, rate, source.typed.by_libvirt, other.record())
    )


def _on_this_host(plan: Plan, seen: Seen, source: Source) -> Plan:
    """With what copies cost here, for our own runs."""
    if source.typed.is_vm or not len(seen.whole):
        return plan
    return replace(plan, beside=beside_here(seen.whole, max(1, min(plan.channels, int(seen.host.cpus)))))


def _with_deltas(plan: Plan, seen: Seen, source: Source) -> Plan:
    """Our own runs keep pages where a link limits them (`--delta auto`); QEMU does not, nor does the
    relay."""
    if source.typed.is_vm or not plan.link_bytes_per_second:
        return plan
    return replace(plan, delta_bytes=seen.guest.ram_pages * PAGE_BYTES // RAM_PART)


def _measured(request: Request, seen: Seen, progress: Progress) -> list[Candidate]:
    """Every method that this host has; only plain pages where none could be read."""
    if seen.measured:
        return list(seen.measured)
    asked = request.other_host.methods(METHODS_ASKED)
    methods = [(name, level) for name, level in asked if not METHODS[name].unavailable()]
    if not seen.content_known:
        methods = [("none", None)]
    progress.say("compressing what was seen by every method")
    return _compressed(methods, request, seen)


def _compressed(methods: list[Method], request: Request, seen: Seen) -> list[Candidate]:
    threads = max(1, min(max(request.channels), int(seen.host.cpus)))
    return candidates(methods, seen.whole, seen.written, threads, seen.gauges)


def _save_page(findings: Findings, path: str) -> None:
    try:
        save_text(page(findings), Path(path))
    except OSError as error:
        raise RunFailed(f"--html {path}: {error.strerror}") from error


def run(given: Given, command: list[str]) -> int:
    """Look, forecast, print, and return the exit code."""
    request = read(given)
    progress = open_progress(request.quiet)
    try:
        document, text = _document(request, progress)
    finally:
        progress.close()
    if request.json is not None:
        save_json({**document, "command": command}, request.json)
    if request.json != "-":
        show(text)
    return 0


def _document(request: Request, progress: Progress) -> tuple[dict[str, Any], str]:
    """What was asked for, and its text; the page is written."""
    if request.source is None:
        figures, text = score_folder(request.score) if request.score is not None else published()
        return {"schema_version": SCHEMA_VERSION, "status": "completed", "error": None, **figures}, text
    findings = _find(request, request.source, progress)
    if request.html is not None:
        _save_page(findings, request.html)
    return findings.document(), findings.text()


COMMAND = Command(build_parser, run)
