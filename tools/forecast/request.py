"""The command line of `forecast`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from pipeline.cli import guest as guest_cli
from pipeline.cli.connection import (
    ADDRESSES,
    CONNECTION_OPTIONS,
    add_connection_arguments,
    read_address,
    read_connection,
)
from pipeline.cli.parser import SIZES, Parser
from pipeline.cli.result import add_output_arguments
from pipeline.cli.values import Given, option_of
from pipeline.errors import UsageError
from pipeline.forecast.situation import Plan
from pipeline.net.tls import CLIENT
from pipeline.options import MAX_DOWNTIME_LIMIT_MS, MAX_WORKERS
from pipeline.policy import PolicySettings
from pipeline.transports.tcp.client.dial import Peer
from tools.forecast.host import HOST_OPTIONS, OtherHost, add_host_arguments, read_host
from tools.forecast.sources.curve_file import StillGuest, read_curve
from tools.forecast.sources.earlier_run import read_result
from tools.forecast.sources.live_vm import LibvirtVm, MonitoredVm
from tools.forecast.sources.own_guest import MadeGuest, NamedGuest
from tools.forecast.sources.seen import Source

PROBE_WELCOME_SECONDS = 5.0
DEFAULT_CHANNELS = (1, 2, 4)
DEFAULT_DOWNTIME_LIMIT_MS = 300.0
NAMED = ("qmp", "libvirt", "attach", "result", "score", "published")
"""Options that say what to look at; without any a guest is made."""

HOW_IT_WRITES = (*guest_cli.SETTINGS, "preset", "phases", "seed")
OF_A_LOOK = ("bandwidth", "max_bandwidth", "probe", "channels", "downtime_limit", "html")
SOURCES = (
    "--qmp SOCKET, --libvirt DOMAIN, --attach NAME, --result FILE, --score DIR, --published, or a guest to "
    "make (--image, --preset, --size, ...)"
)


@dataclass(frozen=True)
class Request:
    """A checked command line. One of `source`, `score` and `published` is meant; `probed` is whom to ask for
    the link."""

    source: Source | None
    score: Path | None
    published: bool
    other_host: OtherHost
    plan: Plan
    probed: Peer | None
    channels: tuple[int, ...]
    json: str | None
    html: str | None
    quiet: bool


def build_parser(program: str) -> Parser:
    """All options, with units and defaults."""
    parser = Parser(
        program,
        "Look at a VM or a guest for some seconds, and say what its migration will take by every method.",
        *(1, 4),
        epilog=f"What to look at: {SOURCES}. {SIZES}",
    )
    add = parser.add_argument_group("what to look at").add_argument
    add("--qmp", metavar="SOCKET", help="a VM's monitor (QMP), which no other client holds")
    add("--libvirt", metavar="DOMAIN", help="a VM of libvirt's, which owns its monitor: asked through virsh")
    add("--connect", metavar="URI", help="for --libvirt: virsh's --connect (default: virsh's own)")
    add("--attach", metavar="NAME", help="the guest that tools.dirtyrate --create NAME keeps running")
    add(
        "--result",
        metavar="FILE",
        help="no look: the guest and the methods of an earlier run, from the JSON of pipeline.run or send",
    )
    add("--score", metavar="DIR", help="no look: how good the forecasts in these result documents were")
    add(
        "--published",
        action="store_const",
        const=True,
        help="no look: rows that others published of QEMU's migrations, beside what the model says of them",
    )
    add(
        "--dirty-curve",
        metavar="FILE",
        help="for a guest of --image or --size: how it writes, measured elsewhere, as JSON of "
        "tools.dirtyrate, tools.forecast or a run, or CSV with seconds,pages (default: it writes here)",
    )
    guest_cli.add_guest_arguments(parser)
    add_host_arguments(parser)
    add = parser.add_argument_group("how it is to be sent").add_argument
    add(
        "--bandwidth", metavar="RATE", help="what the link carries, bytes a second; 0 is no limit (default 0)"
    )
    add(
        "--max-bandwidth",
        metavar="RATE",
        help="of a VM (--qmp, --libvirt, --dirty-curve): QEMU's own limit, where the link carries more. QEMU "
        "exceeds it by up to a packet a channel each 100 ms, which is forecast too (default: as --bandwidth)",
    )
    add(
        "--probe",
        metavar="ADDRESS",
        help="measure the link for 2 s, in place of --bandwidth: where pipeline.recv or pipeline.relay "
        f"--accept waits, which goes on waiting: {ADDRESSES}",
    )
    add("--channels", metavar="LIST", help="numbers of channels, with commas (default 1,2,4)")
    add(
        "--downtime-limit",
        metavar="MS",
        help=f"milliseconds that the guest may stand still (default {DEFAULT_DOWNTIME_LIMIT_MS:g})",
    )
    add_connection_arguments(parser, with_secret=True)
    add = parser.add_argument_group("the result").add_argument
    add("--html", metavar="FILE", help="write it as one HTML page, which needs no network (default none)")
    add_output_arguments(parser)
    return parser


def read(given: Given) -> Request:
    """Raises UsageError."""
    meant = [name for name in NAMED if given.has(name)]
    if len(meant) > 1:
        raise UsageError(f"{' and '.join(map(option_of, meant))}: name one of {SOURCES}")
    if meant:
        of_a_made_one = (*guest_cli.GUEST_OPTIONS, "dirty_curve")
        given.refuse(of_a_made_one, f"makes a guest; leave this out, or {option_of(meant[0])}")
    if not given.has("libvirt"):
        given.refuse(("connect",), "is for --libvirt")
        if not given.has("qmp") and not given.has("dirty_curve"):
            given.refuse(("max_bandwidth",), "is QEMU's own, for --qmp, --libvirt and --dirty-curve")
    score = given.text("score")
    published = given.flag("published")
    if score is not None or published:
        given.refuse((*OF_A_LOOK, *HOST_OPTIONS), f"belongs to a look; leave out {option_of(meant[0])}")
    if score is not None and not Path(score).is_dir():
        raise UsageError(f"--score {score}: no such folder")
    if given.has("json") and given.text("json") == given.text("html"):
        raise UsageError(f"--html {given.text('html')}: is --json too; name another file")
    limit = given.above_zero("downtime_limit", MAX_DOWNTIME_LIMIT_MS, "ms", DEFAULT_DOWNTIME_LIMIT_MS)
    channels = _channels(given.text("channels"))
    plan = Plan(
        *(channels[0], channels[0], given.rate("bandwidth"), PolicySettings(downtime_limit_ms=limit)),
        qemu_limit_bytes_per_second=given.rate("max_bandwidth"),
    )
    return Request(
        source=None if score is not None or published else _source(given),
        score=None if score is None else Path(score),
        published=published,
        other_host=read_host(given),
        plan=plan,
        probed=_probed(given),
        channels=channels,
        json=given.new_file("json"),
        html=_html(given),
        quiet=given.flag("quiet"),
    )


def _probed(given: Given) -> Peer | None:
    """Whom to probe. Raises UsageError."""
    if not given.has("probe"):
        given.refuse((*CONNECTION_OPTIONS, "secret"), "is for --probe")
        return None
    given.refuse(("bandwidth",), "either this or --probe, which measures it")
    given.refuse(("reconnect",), "a probe calls once; leave this out")
    connection = read_connection(given, CLIENT)
    address = read_address(given, "probe", connection)
    context = None if connection.tls is None else connection.tls.context(CLIENT)
    return Peer(address, connection.tls, 0.0, PROBE_WELCOME_SECONDS, connection.secret, context)


def _html(given: Given) -> str | None:
    """Raises UsageError."""
    if given.text("html") == "-":
        raise UsageError("--html -: name a file; standard output has the table")
    return given.new_file("html")


def _source(given: Given) -> Source:
    attach = guest_cli.read_attach(given)
    qmp = given.text("qmp")
    if qmp is not None:
        return MonitoredVm(qmp)
    domain = given.text("libvirt")
    if domain is not None:
        uri = given.text("connect")
        return LibvirtVm(_plain("libvirt", domain), None if uri is None else _plain("connect", uri))
    if attach is not None:
        return NamedGuest(attach)
    result = given.text("result")
    if result is not None:
        return read_result("--result", Path(result))
    path = given.text("dirty_curve")
    if path is None:
        return _made(given)
    given.refuse(HOW_IT_WRITES, "the file of --dirty-curve says how the guest writes; leave this out")
    options = guest_cli.read_guest(given)
    return StillGuest(options, *read_curve("--dirty-curve", Path(path), options.size_bytes), path)


def _plain(name: str, text: str) -> str:
    """What virsh cannot take for an option of its own. Raises UsageError."""
    if not text or text.startswith("-") or not text.isprintable():
        raise UsageError(f"{option_of(name)} {text!a}: must be as virsh takes it")
    return text


def _made(given: Given) -> Source:
    return MadeGuest(guest_cli.read_guest(given), _as_given(given))


def _as_given(given: Given) -> str:
    """The options of a guest, to be typed again."""
    words = [
        word
        for name in guest_cli.GUEST_OPTIONS
        if (text := given.text(name)) is not None
        for word in (option_of(name), text)
    ]
    return shlex.join(words)


def _channels(text: str | None) -> tuple[int, ...]:
    if text is None:
        return DEFAULT_CHANNELS
    try:
        found = tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError as error:
        raise UsageError(f"--channels {text}: must be numbers with commas between") from error
    if not found or not all(1 <= number <= MAX_WORKERS for number in found):
        raise UsageError(f"--channels {text}: must be 1 to {MAX_WORKERS}")
    return found
