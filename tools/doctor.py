"""`python -m tools.doctor`: can this host compress on Intel QAT, and if not, what would mend it?

Reads, and makes one round trip through the device in a process of its own; never resets or
reconfigures anything.
"""

from __future__ import annotations

if __name__ == "__main__":  # in front of imports that take time, in which a signal may come
    import sys

    from pipeline.cli.main import execute

    sys.exit(execute("tools.doctor", sys.argv[1:]))

from dataclasses import asdict
from pathlib import Path

from pipeline.cli.main import Command, show
from pipeline.cli.parser import Parser
from pipeline.cli.values import Given
from pipeline.errors import UsageError
from pipeline.report.files import save_json
from qat.checkup import FAILS, WARNING, Finding, Host, check_all
from qat.health import check_health
from qat.known_faults import check_known_faults
from qat.nodes import check_nodes
from qat.roundtrip import check_round_trip

SCHEMA_VERSION = 1
CANNOT = 2


def build_parser(program: str) -> Parser:
    """All options, with what each is and its default."""
    parser = Parser(
        program,
        "Check, from the bottom up, what this host needs to compress on Intel QAT. It changes nothing.",
    )
    add = parser.add_argument
    add("--root", metavar="DIR", help="look at a recorded tree of sys, dev, etc, run, proc (default /)")
    add("--json", metavar="FILE", help="write the findings as JSON; - is standard output (default none)")
    return parser


def examine(root: Path) -> list[Finding]:
    """All findings, the real test last."""
    host = Host.at(root)
    more = [*check_known_faults(host), check_nodes(host), check_health(host)]
    return [*check_all(root), *more, check_round_trip(root)]


def verdict(findings: list[Finding]) -> str:
    """One sentence for somebody who has read nothing else."""
    failed = [finding for finding in findings if finding.status == FAILS]
    if failed:
        what = ", ".join(finding.check for finding in failed)
        first = f"Begin with the first, {failed[0].check}: {failed[0].read}."
        return f"This host cannot compress on QAT: {what}. {first}"
    if any(finding.status == WARNING for finding in findings):
        return "Nothing fails, but see the warnings."
    return "This host compresses on QAT."


def render(findings: list[Finding]) -> str:
    """A line a finding, the command that mends it below; the verdict at the end."""
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:8}{finding.check:{width}}  {finding.read}")
        if finding.mend:
            lines.append(f"{'':8}{'':{width}}  -> {finding.mend}")
    return "\n".join([*lines, "", verdict(findings)])


def run(given: Given, command: list[str]) -> int:
    """Check, print, and return the exit code."""
    target = given.new_file("json")
    root = Path(given.text("root") or "/")
    if not root.is_dir():
        raise UsageError(f"--root {root}: no such folder")
    findings = examine(root)
    document = {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "verdict": verdict(findings),
        "findings": [asdict(finding) for finding in findings],
    }
    if target is not None:
        save_json(document, target)
    if target != "-":
        show(render(findings))
    return CANNOT if any(finding.status == FAILS for finding in findings) else 0


COMMAND = Command(build_parser, run)
