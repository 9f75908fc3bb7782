"""The command `relay`: carry the migration of a real VM between two unmodified QEMUs."""

from __future__ import annotations

import grp
import os
import pwd
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cli import channels
from pipeline.cli.connection import ADDRESSES, add_connection_arguments, read_address, read_connection
from pipeline.cli.forecast import add_forecast_argument, render_score
from pipeline.cli.main import Command, show
from pipeline.cli.parser import SIZES, Parser
from pipeline.cli.policy import read_max_bandwidth
from pipeline.cli.recv import MAX_RUNS
from pipeline.cli.relay_forecast import RelayForecaster
from pipeline.cli.values import Given, checked
from pipeline.errors import FerryError, HostError, UsageError, one_line
from pipeline.net.address import Address, parse_address
from pipeline.net.tls import CLIENT, SERVER
from pipeline.options import DEFAULT_CHANNELS, MAX_WORKERS
from pipeline.progress import open_log
from pipeline.relay.codec_pool import PoolOptions
from pipeline.relay.options import RelayOptions
from pipeline.relay.report import SCHEMA_VERSION, render
from pipeline.relay.service import error_of, run_relay
from pipeline.relay.sockets import Access
from pipeline.report.files import save_json

MAX_CONNECTIONS = 16
DEFAULT_CONNECTIONS = 2
NAMED = re.compile(r"(?:(?P<name>[A-Za-z0-9._-]{1,60})=)?(?P<address>unix:.+)")
OF_SOURCE = (
    *("method", "level", "max_bandwidth", "connections", "peer_user", "socket_owner", "socket_mode"),
    *("without_return_path", "qat_fallback", "qat_buffer", "qat_timeout"),
)


@dataclass(frozen=True)
class RelayRequest:
    """A command line of `relay`, checked. `json` names a file, or with `json_folder` a folder."""

    options: RelayOptions
    insecure: bool
    json: str | None
    json_folder: Path | None
    forecast: bool
    quiet: bool


def build_parser(program: str) -> Parser:
    """All options, with units and defaults."""
    parser = Parser(
        program,
        "Carry a VM's live migration between two unmodified QEMUs, compressed, over a link that may break. "
        "At the source: --listen and --to; at the destination: --accept and --deliver.",
        *(1, 4),
        epilog=SIZES,
    )
    add = parser.add_argument_group("the source").add_argument
    add(
        "--listen",
        metavar="[NAME=]unix:PATH",
        action="append",
        help="where the source's QEMU migrates to; with a NAME several VMs have one each",
    )
    add("--to", metavar="ADDRESS", help=f"where the destination's relay accepts: {ADDRESSES}")
    _add_socket_arguments(add)
    add(
        "--without-return-path",
        action="store_true",
        default=None,
        help="take a migration without the capability return-path: a lost tail leaves no guest running",
    )
    add = parser.add_argument_group("the destination").add_argument
    add("--accept", metavar="ADDRESS", help=f"where to wait for the source's relay: {ADDRESSES}")
    add(
        "--deliver",
        metavar="[NAME=]unix:PATH",
        action="append",
        help="where the destination's QEMU waits (migrate-incoming)",
    )
    add = parser.add_argument_group("QEMU's monitor").add_argument
    add(
        "--qmp",
        metavar="SOCKET",
        help="a QMP socket of the QEMU at this side: at the destination the relay answers for "
        "migrate-incoming and cont; at the source QEMU's figures stand in the result (needs ramferry[qemu])",
    )
    add(
        "--migrate",
        action="store_true",
        default=None,
        help="at the source, with --qmp at both sides: start the migration and see it through",
    )
    add("--multifd", metavar="N", help="for --migrate: QEMU's multifd channels, 0 to 255 (default 0: none)")
    add = parser.add_argument_group("how it is carried").add_argument
    add(
        "--method",
        metavar="METHOD",
        help=f"{', '.join(channels.METHOD_NAMES)}, with :LEVEL if wanted (default auto)",
    )
    add("--level", metavar="N", help="compression level of --method (default 1)")
    add(
        "--channels",
        metavar="N",
        help=f"threads that compress or decompress, 1 to {MAX_WORKERS} (default {DEFAULT_CHANNELS})",
    )
    add(
        "--connections",
        metavar="N",
        help=f"connections between the relays, 1 to {MAX_CONNECTIONS} (default {DEFAULT_CONNECTIONS})",
    )
    add("--max-bandwidth", metavar="RATE", help="on the wire, of all migrations (default 0: no limit)")
    channels.add_qat_arguments(parser)
    add_connection_arguments(parser, with_secret=True)
    add_forecast_argument(parser)
    add = parser.add_argument_group("runs and results").add_argument
    add("--runs", metavar="N", help="end after N migrations, however they ended; 0 is never (default 1)")
    add(
        "--json",
        metavar="FILE",
        help="the result as JSON: a file, - for standard output, or a folder, which keeps one a migration",
    )
    add(
        "--metrics",
        metavar="HOST:PORT",
        help="answer Prometheus there, on loopback unless --insecure (needs ramferry[metrics])",
    )
    add("--quiet", action="store_true", default=None, help="say nothing meanwhile")
    return parser


def _add_socket_arguments(add: Any) -> None:
    add(
        "--peer-user",
        metavar="USER",
        action="append",
        help="a user whose QEMU may connect, beside this one and root; may be repeated",
    )
    add("--socket-owner", metavar="USER[:GROUP]", help="who gets the socket's file (default: this user)")
    add("--socket-mode", metavar="MODE", help="octal mode of the socket's file (default 600)")


def read(given: Given) -> RelayRequest:
    """Raises UsageError."""
    at_source = given.has("listen") or given.has("to")
    at_destination = given.has("accept") or given.has("deliver")
    if at_source == at_destination:
        raise UsageError("give --listen and --to at the source, or --accept and --deliver at the destination")
    for name in ("listen", "to") if at_source else ("accept", "deliver"):
        if not given.has(name):
            raise UsageError(f"--{name} is needed at this side, too")
    if at_destination:
        given.refuse(OF_SOURCE, "is for the source's relay (--listen, --to); leave it out")
    connection = read_connection(given, CLIENT if at_source else SERVER)
    method = channels.read_method(given)
    runs = given.whole("runs", 0, MAX_RUNS, 1)
    json, folder = _read_json(given)
    qmp = _read_qmp(given, at_source=at_source, runs=runs)
    if json is not None and runs != 1:
        raise UsageError(f"--json {json}: --runs {runs} makes several results; name a folder")
    options = RelayOptions(
        listens=_named(given, "listen") if at_source else {},
        to=read_address(given, "to", connection) if at_source else None,
        delivers=_named(given, "deliver") if at_destination else {},
        accept=read_address(given, "accept", connection) if at_destination else None,
        pool=PoolOptions(
            method.name if at_source else "none",
            method.resolved_level,
            channels.read_channels(given),
            channels.read_qat(given, (method,)),
        ),
        connections=given.whole("connections", 1, MAX_CONNECTIONS, DEFAULT_CONNECTIONS),
        max_bandwidth=read_max_bandwidth(given),
        tls=connection.tls,
        secret=connection.secret,
        reconnect_seconds=connection.reconnect_seconds,
        access=_read_access(given),
        runs=runs,
        without_return_path=given.flag("without_return_path"),
        qmp=qmp,
        migrate=given.flag("migrate"),
        multifd=given.whole("multifd", 0, 255, 0),
        metrics=_read_metrics(given),
    )
    _refuse_one_place(options)
    forecast = given.flag("forecast")
    if forecast:
        _check_forecast(options)
    return RelayRequest(options, connection.insecure, json, folder, forecast, given.flag("quiet"))


def _check_forecast(options: RelayOptions) -> None:
    """Raises UsageError for what cannot be looked at, or is not modelled."""
    if options.to is None:
        raise UsageError("--forecast: is for the source's relay; leave it out")
    if options.qmp is None:
        raise UsageError("--forecast: needs --qmp SOCKET, the monitor of the VM to look at")
    if options.pool.method == "qatzip":
        raise UsageError("--forecast: a QAT device is not measured by a look; choose a CPU method")


def _refuse_one_place(options: RelayOptions) -> None:
    """A relay that calls itself would wait for ever. Raises UsageError."""
    both = "--listen and --to" if options.to is not None else "--accept and --deliver"
    place = options.to or options.accept
    if place in (*options.listens.values(), *options.delivers.values()):
        raise UsageError(f"{both} name one place, {place}: name two")


def _read_qmp(given: Given, *, at_source: bool, runs: int) -> str | None:
    """The monitor's path; it is one QEMU's, so it goes with one migration. Raises UsageError."""
    path = given.text("qmp")
    if path is not None and path.startswith("unix:"):
        raise UsageError(f"--qmp {path}: give the path alone: --qmp {path.removeprefix('unix:')}")
    if not at_source:
        given.refuse(("migrate", "multifd"), "is for the source's relay; leave it out")
    if path is None:
        given.refuse(("migrate",), "needs --qmp SOCKET, QEMU's monitor")
    if not given.flag("migrate"):
        given.refuse(("multifd",), "is for --migrate; leave it out")
    if path is None:
        return None
    names = given.texts("listen" if at_source else "deliver")
    if len(names) > 1 or runs != 1:
        raise UsageError(f"--qmp {path}: is one QEMU's, for one migration: one socket, and --runs 1")
    return path


def _read_metrics(given: Given) -> Address | None:
    """Figures tell how large guests are, so they stay on this host. Raises UsageError."""
    text = given.text("metrics")
    if text is None:
        return None
    address = checked("--metrics", text, parse_address)
    if address.path:
        raise UsageError(f"--metrics {text}: must be HOST:PORT")
    try:
        local = address.is_local()
    except OSError as error:
        raise UsageError(f"--metrics {text}: {error}") from error
    if not local and not given.flag("insecure"):
        raise UsageError(f"--metrics {text}: anybody on the network could read it: name a loopback address")
    return address


def _named(given: Given, option: str) -> dict[str, Address]:
    found: dict[str, Address] = {}
    for text in given.texts(option):
        match = NAMED.fullmatch(text)
        if match is None:
            raise UsageError(f"--{option} {text}: must be unix:PATH, or NAME=unix:PATH for several VMs")
        name, address = match["name"] or "", checked(f"--{option}", match["address"], parse_address)
        if name in found or any(address == other for other in found.values()):
            raise UsageError(
                f"--{option} {text}: {'this name' if name in found else 'this path'} stands twice"
            )
        found[name] = address
    if "" in found and len(found) > 1:
        raise UsageError(f"--{option}: with several VMs each needs a name: NAME=unix:PATH")
    return found


def _read_access(given: Given) -> Access:
    users = frozenset(_uid("--peer-user", name) for name in given.texts("peer_user"))
    owner = given.text("socket_owner")
    mode = given.text("socket_mode")
    return Access(users, None if owner is None else _owner(owner), None if mode is None else _mode(mode))


def _uid(option: str, name: str) -> int:
    try:
        return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except (KeyError, OverflowError):
        raise UsageError(f"{option} {name}: no such user") from None


def _owner(text: str) -> tuple[int, int]:
    user, _, group = text.partition(":")
    if os.geteuid() != 0:
        raise UsageError(f"--socket-owner {text}: only root can give files away")
    try:
        gid = -1 if not group else int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise UsageError(f"--socket-owner {text}: no such group") from None
    return (_uid("--socket-owner", user) if user else -1), gid


def _mode(text: str) -> int:
    if not re.fullmatch("0?[0-7]{3}", text):
        raise UsageError(f"--socket-mode {text}: must be three octal digits, such as 660")
    return int(text, 8)


def _read_json(given: Given) -> tuple[str | None, Path | None]:
    text = given.text("json")
    if text is not None and text != "-" and Path(text).is_dir():
        if not os.access(text, os.W_OK | os.X_OK):
            raise UsageError(f"--json {text}: no file can be made in this folder")
        return None, Path(text)
    return given.new_file("json"), None


def run(given: Given, command: list[str]) -> int:
    """Relay, print, and return the exit code."""
    request = read(given)
    progress = open_log(request.quiet)
    if request.insecure:
        progress.warn("--insecure: whoever is on the way can read and change guest RAM")

    forecaster = RelayForecaster(request.options) if request.forecast else None
    if forecaster is not None:
        forecaster.look(progress)

    def keep(found: dict[str, Any]) -> None:
        if forecaster is not None:
            forecaster.add_to(found)
        if request.json_folder is not None:
            name = (
                f"{found['began'].replace(':', '')}-{found['name'] or 'migration'}-{os.urandom(2).hex()}.json"
            )
            try:
                save_json(found, str(request.json_folder / name))
            except OSError as error:
                raise HostError(f"--json {request.json_folder}: {error.strerror}") from error
        if found["error"] is not None:
            progress.warn(f"{found['name'] or 'migration'}: {found['error']}")
        if request.json != "-" and (found["error"] is None or request.options.runs != 1):
            show(render(found))
            if found.get("score") is not None:
                show(render_score(found))

    outcomes = run_relay(request.options, command, progress, keep)
    if request.json is not None:
        last = outcomes.documents[-1] if outcomes.documents else _nothing(command)
        try:
            save_json(last, request.json)
        except (FerryError, OSError) as error:
            # The guest has moved, or has not: this does not change it.
            progress.warn(f"--json {request.json}: {one_line(error)}")
    failed = error_of(outcomes)
    if failed is not None and request.options.runs:
        raise failed
    return 0


def _nothing(command: list[str]) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "status": "completed", "error": None, "command": command}


COMMAND = Command(build_parser, run)
