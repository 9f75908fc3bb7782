"""The command `recv`: wait for a sender, receive its guest's RAM, and put it where it was asked to be."""

from __future__ import annotations

from dataclasses import dataclass

from guestmem.units import show_size
from pipeline.cli import channels
from pipeline.cli.connection import (
    ADDRESSES,
    add_connection_arguments,
    read_address,
    read_connection,
)
from pipeline.cli.main import Command, show
from pipeline.cli.memory import add_memory_arguments, read_huge_pages
from pipeline.cli.parser import SIZES, Parser
from pipeline.cli.placement import add_cpu_arguments, memory_on, read_cpus, read_numa
from pipeline.cli.result import add_output_arguments
from pipeline.cli.values import Given
from pipeline.destination.output import Output
from pipeline.errors import FerryError, one_line, traceback_of
from pipeline.net.address import Address
from pipeline.net.tls import SERVER
from pipeline.options import MAX_RAM_BYTES, MAX_WORKERS, QatOptions, ReceiveOptions
from pipeline.progress import open_log
from pipeline.report.document import SCHEMA_VERSION, status_of
from pipeline.report.files import save_json
from pipeline.transports.tcp.server.service import ServiceOptions, serve

MAX_RUNS = 10**9


@dataclass(frozen=True)
class RecvRequest:
    """A command line of `recv`, checked."""

    listen: Address
    receive: ReceiveOptions
    service: ServiceOptions
    insecure: bool
    json: str | None
    quiet: bool


def build_parser(program: str) -> Parser:
    """All options, with what each is, its unit and its default."""
    parser = Parser(
        program,
        "Receive a guest's RAM that python -m pipeline.send sends. A sender that fails, "
        "or a peer that is no sender, is reported in one line, and recv waits for the next.",
        *(1,),
        epilog=SIZES,
    )
    add = parser.add_argument_group("what is received").add_argument
    add("--listen", metavar="ADDRESS", required=True, help=f"where to wait for the sender: {ADDRESSES}")
    add("--output", metavar="FILE", help="write the copy to a file, as a raw RAM image (default: drop it)")
    add("--output-shm", metavar="NAME", help="leave the copy in POSIX shared memory (default: drop it)")
    add("--max-size", metavar="SIZE", help="RAM taken at most, bytes (default: what is free)")
    add(
        "--max-channels",
        metavar="N",
        help=f"channels taken at most, 1 to {MAX_WORKERS} (default {MAX_WORKERS})",
    )
    add("--runs", metavar="N", help="end after N complete runs, 0 is never (default 1)")
    add(
        "--once",
        action="store_true",
        default=None,
        help="end after the first run, also when it failed (default off)",
    )
    add(
        "--prealloc",
        action="store_true",
        default=None,
        help="give the destination its pages before the clock starts (default: on first touch)",
    )
    add_memory_arguments(parser)
    add_cpu_arguments(parser, "recv_cpus")
    channels.add_decode_argument(parser)
    add_connection_arguments(parser, with_secret=True)
    add_output_arguments(parser)
    return parser


def read(given: Given) -> RecvRequest:
    """Raises UsageError."""
    connection = read_connection(given, SERVER)
    listen = read_address(given, "listen", connection)
    output, shm = given.text("output"), given.text("output_shm")
    Output(output, shm).check()
    runs = given.whole("runs", 0, MAX_RUNS, 1)
    if runs != 1:
        given.refuse(
            ("output", "output_shm"), f"takes one copy, and --runs {runs} makes several; leave one out"
        )
    if given.flag("once"):
        given.refuse(("runs",), "--once ends after the first run; leave one out")
    size = given.size("max_size", 1, MAX_RAM_BYTES, 0)
    receive = ReceiveOptions(
        tls=connection.tls,
        secret=connection.secret,
        reconnect_seconds=connection.reconnect_seconds,
        prealloc=given.flag("prealloc"),
        recv_cpus=read_cpus(given, "recv_cpus"),
        numa=read_numa(given),
        huge_pages=read_huge_pages(given, makes_images=given.flag("prealloc"), why_not="is for --prealloc"),
        ram_bytes_max=size or None,
        channels_max=given.whole("max_channels", 1, MAX_WORKERS, MAX_WORKERS),
        output=output,
        output_shm=shm,
        qat=QatOptions(decode=channels.read_decode(given)),
    )
    service = ServiceOptions(runs, given.flag("once"))
    return RecvRequest(
        listen, receive, service, connection.insecure, given.new_file("json"), given.flag("quiet")
    )


def run(given: Given, command: list[str]) -> int:
    """Receive, print, and return the exit code."""
    request = read(given)
    progress = open_log(request.quiet)
    if request.insecure:
        progress.warn("--insecure: whoever can reach this port can send RAM, and read what is sent")
    error: FerryError | None = None
    try:
        with memory_on(request.receive.numa):
            code, record = serve(request.listen, request.receive, request.service, progress)
    except FerryError as raised:
        error, code = raised, raised.exit_code
        record = {"status": status_of(raised), "error": one_line(raised), "traceback": traceback_of(raised)}
    if request.json is not None:
        save_json({"schema_version": SCHEMA_VERSION, "command": command, **record}, request.json)
    if error is not None:
        raise error
    if request.json != "-" and code == 0:
        output = f", written to {record['output']}" if record["output"] else ""
        show(f"received {show_size(record['size_bytes'])} in {record['rounds']} rounds{output}")
    return code


COMMAND = Command(build_parser, run)
