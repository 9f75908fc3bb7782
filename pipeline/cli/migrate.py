"""One migration of a command, from options to a result document: for `pipeline.run` and `pipeline.send`."""

from __future__ import annotations

import argparse
import dataclasses

from pipeline.cli import channels, guest, memory, policy, result
from pipeline.cli.channels import MethodChoice
from pipeline.cli.connection import ConnectionOptions
from pipeline.cli.forecast import Forecaster
from pipeline.cli.placement import (
    add_cpu_arguments,
    far_devices,
    memory_on,
    placement_record,
    read_cpus,
    read_numa,
)
from pipeline.cli.values import Given
from pipeline.codecs import library_versions
from pipeline.codecs.qatzip import device_needed
from pipeline.errors import FerryError, HostError, InternalError
from pipeline.migration import Migration
from pipeline.net.address import Address
from pipeline.options import AUTO, Options
from pipeline.processes.limits import limit_of
from pipeline.processes.signals import signals_cancel
from pipeline.processes.supervisor import Supervisor
from pipeline.progress import Progress
from pipeline.report.columns import Result
from pipeline.report.document import build_result
from pipeline.report.host import host_record
from pipeline.report.metrics import Metrics
from qat.probe import ANSWERED, probe


def add_migration_arguments(parser: argparse.ArgumentParser, *, several_methods: bool) -> None:
    """The options of whoever sends."""
    parser.add_argument(
        "--attach",
        metavar="NAME",
        help="migrate the guest that tools.dirtyrate --create NAME keeps running, and leave it "
        "running (default: make a guest for this run, as described below)",
    )
    guest.add_guest_arguments(parser)
    memory.add_memory_arguments(parser)
    add_cpu_arguments(parser, "send_cpus", *(["recv_cpus"] if several_methods else []))
    channels.add_channel_arguments(parser, several_methods=several_methods)
    channels.add_qat_arguments(parser)
    policy.add_policy_arguments(parser)
    result.add_result_arguments(parser)


def read_options(
    given: Given,
    method: MethodChoice,
    connection: ConnectionOptions | None,
    *,
    transport: str,
    to: Address | None = None,
    receivers: int | None = None,
    prealloc: bool = False,
    qat_methods: tuple[MethodChoice, ...] | None = None,
    decode: str = channels.QAT.decode,
) -> Options:
    """The options of one run. `qat_methods` are all methods of the command, of which one must be able to use
    the QAT options. Raises UsageError."""
    attach = guest.read_attach(given)
    verify = result.read_verify(given)
    own = None
    if attach is None:
        own = guest.read_guest(given, self_checking=result.self_checking(verify))
    count = channels.read_channels(given)
    receivers = count if receivers is None else receivers
    zero_copy = channels.read_zero_copy(given, qat_methods or (method,), connection, to)
    link = connection or ConnectionOptions(None, None, False, Options.reconnect_seconds)
    return Options(
        attach=attach,
        guest=own,
        method=method.name,
        level=method.resolved_level,
        channels=count,
        receivers=receivers,
        packet_bytes=channels.read_packet_bytes(given),
        queue_depth=channels.read_queue_depth(given, qat_methods or (method,), transport, count, receivers),
        prealloc=prealloc,
        dirty_log=channels.read_dirty_log(given),
        max_bandwidth=policy.read_max_bandwidth(given),
        timeout_seconds=policy.read_timeout(given),
        policy=policy.read_policy(given),
        qat=channels.read_qat(given, qat_methods or (method,), decode=decode),
        verify=verify,
        transport=transport,
        to=to,
        tls=link.tls,
        secret=link.secret,
        reconnect_seconds=link.reconnect_seconds,
        insecure=link.insecure,
        numa=read_numa(given),
        send_cpus=read_cpus(given, "send_cpus"),
        recv_cpus=read_cpus(given, "recv_cpus") if to is None else None,
        zero_copy=zero_copy,
        delta_bytes=channels.read_delta(given, zero_copy=zero_copy),
        huge_pages=memory.read_huge_pages(
            given,
            makes_images=attach is None or prealloc,
            why_not="no image is made here: the guest is there already"
            + ("" if to is not None else ", and the destination only with --prealloc"),
        ),
    )


def migrate(
    options: Options, command: list[str], progress: Progress, *, forecast: bool = False
) -> tuple[Result, FerryError | None]:
    """One run: its result document, and the error that ended it, if any. Raises nothing of a run."""
    metrics = Metrics()
    forecaster: Forecaster | None = None
    error: FerryError | None = None
    if options.insecure:
        progress.warn("--insecure: whoever is on the way can read and change guest RAM")
    try:
        _warn_of_distance(options, progress)
        metrics.placement = placement_record(options)
        cpus = {"send": options.send_cpus, "recv": options.recv_cpus}
        supervised = Supervisor(progress.warn, cpus)
        with memory_on(options.numa), supervised as supervisor, signals_cancel(supervisor):
            options = _with_device_asked(options, progress)
            forecaster = Forecaster(options, progress) if forecast else None
            before = None if forecaster is None else forecaster.look
            Migration(options, supervisor, progress, metrics, before).run()
    except FerryError as raised:
        error = raised
    except Exception as raised:  # a fault of ours ends the run, and its document says where
        error = limit_of(raised) or InternalError.of(raised)
    result = build_result(options, metrics, command, host_record(library_versions()), error)
    if forecaster is not None:
        forecaster.add_to(result)
    return result, error


def _warn_of_distance(options: Options, progress: Progress) -> None:
    if options.method in channels.ON_DEVICE:
        for side, cpus in (("send", options.send_cpus), ("recv", options.recv_cpus)):
            if far := far_devices(cpus):
                progress.warn(f"{side} {far}: each request crosses between sockets")


def _with_device_asked(options: Options, progress: Progress) -> Options:
    """Ask the QAT device where it may be used. Raises HostError where it must answer, and does not."""
    needed = options.method in channels.ON_DEVICE and not options.qat.fallback
    if options.method != AUTO and not needed:
        return options
    answer = probe()
    if needed and answer != ANSWERED:
        raise HostError(device_needed(answer, options.method))
    if options.method != AUTO:
        return options
    progress.say(f"method auto; the QAT device says: {answer}")
    return dataclasses.replace(options, auto_with_qat=answer == ANSWERED)
