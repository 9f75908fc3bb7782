"""Every table of docs/measurements.md, and the README's chart, by one command.

A section is written as soon as it is measured; the others keep their text. A section that this host cannot
measure is left out, and why is said.
"""

from __future__ import annotations

from typing import Any

from pipeline.errors import RunFailed, UsageError
from tools.bench.docs import bandwidth, guests, hosts, methods, others
from tools.bench.docs.document import Measurements
from tools.bench.docs.section import Section
from tools.bench.request import BenchRequest
from tools.measuring.progress import say

SECTIONS: dict[str, Section] = {
    section.name: section
    for section in (
        *methods.SECTIONS,
        *bandwidth.SECTIONS,
        *guests.SECTIONS,
        *hosts.SECTIONS,
        *others.SECTIONS,
    )
}


def check(request: BenchRequest) -> None:
    """Raises UsageError for a section that is none, or a folder that cannot be written to."""
    for name in request.sections or ():
        if name not in SECTIONS:
            raise UsageError(f"--sections {name}: must be of {', '.join(SECTIONS)}")
    Measurements(request.output, list(SECTIONS))


def measure(request: BenchRequest) -> dict[str, Any]:
    """Measure the sections one after the other, and write each into the page. Raises FerryError."""
    page = Measurements(request.output, list(SECTIONS))
    documents: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name in request.sections or SECTIONS:
        section = SECTIONS[name]
        if why := section.why_not():
            say(f"without {name}: {why}")
            left_out[name] = why
            continue
        say(f"section {name}")
        documents[name] = section.run(request)
        try:
            page.put(name, section.text(documents[name]))
            if name == "bandwidth":
                bandwidth.write_charts(documents[name], request.output)
        except OSError as error:
            raise RunFailed(f"--output {request.output}: {error.strerror}") from error
    return {"sections": documents, "left_out": left_out, "output": str(request.output)}


def tables(document: dict[str, Any]) -> str:
    """The sections that were measured, as they stand in the page."""
    parts = [SECTIONS[name].text(found) for name, found in document["sections"].items()]
    parts += [f"Not measured here: {name}: {why}." for name, why in document["left_out"].items()]
    return "\n\n".join([*parts, f"Written to {document['output']}."])
