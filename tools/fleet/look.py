"""`python -m tools.fleet.look NAME`: a look at a guest of the rack, as JSON, in the guest's namespace."""

from __future__ import annotations

if __name__ == "__main__":  # in front of imports that take time, in which a signal may come
    import sys

    from pipeline.cli.main import execute

    sys.exit(execute("tools.fleet.look", sys.argv[1:]))

from dataclasses import asdict, astuple, dataclass

from guestmem.page import PAGE_BYTES
from pipeline.cli.main import Command
from pipeline.cli.parser import Parser
from pipeline.cli.values import Given
from pipeline.forecast.host_profile import speed_of
from pipeline.forecast.look import look
from pipeline.forecast.sample import candidates
from pipeline.processes.signals import signals_cancel
from pipeline.processes.supervisor import Supervisor
from pipeline.report.files import save_json
from pipeline.source.guest_client import GuestClient

MEASURED = (("zstd", 1), ("lz4", 1), ("zlib", 1))


@dataclass(frozen=True)
class Seen:
    """A guest's share of zero pages, what zstd makes of the others, its dirty curve in (seconds, bytes), and
    the speed of codecs on it: method, level, CPU nanoseconds a byte of each direction."""

    zero_share: float
    ratio: float
    curve: list[tuple[float, int]]
    speeds: list[tuple[str, int | None, float, float]]


def build_parser(program: str) -> Parser:
    """One guest."""
    parser = Parser(
        program, "Look at a guest that tools.dirtyrate --create keeps running, and print JSON.", 1
    )
    parser.add_argument("name", metavar="NAME", help="the guest")
    return parser


def run(given: Given, command: list[str]) -> int:
    """Look, print, and return the exit code."""
    with Supervisor() as supervisor, signals_cancel(supervisor):
        link = GuestClient.attach(supervisor, str(given.text("name")), "auto")
        found = look(link.source, link.log, link.pid, link.rest)
    measured = candidates(MEASURED, found.whole, found.written, 1, found.gauges)
    whole, curve = measured[0].whole, found.guest.curve
    points = [
        (seconds, round(sum(pages) / len(pages)) * PAGE_BYTES)
        for seconds, pages in zip(curve.seconds, curve.pages, strict=True)
    ]
    points = [(at, max(size for before, size in points if before <= at)) for at, _ in points]
    ratio = float(whole.plain_bytes.sum() / max(1.0, whole.payload_bytes.sum())) if len(whole) else 1.0
    speeds = [astuple(one) for one in map(speed_of, measured) if one is not None]
    save_json(asdict(Seen(found.guest.zero_share, max(1.0, ratio), points, speeds)), "-")
    return 0


COMMAND = Command(build_parser, run)
