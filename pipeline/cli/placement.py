"""The part of a command line about where things are: processes on CPUs, memory on NUMA nodes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from guestmem.all_cores import allowed_cpus
from guestmem.numa import nodes_here, prefer_node
from pipeline.cli.values import Given, option_of
from pipeline.errors import HostError, UsageError
from pipeline.net.interface import interface_to
from pipeline.options import Options
from pipeline.processes.placement import far_apart, node_of_interface, nodes_of, parse_cpus, show_cpus
from qat.host import devices

MAX_NODE = 1023

HELP = {
    "send_cpus": "CPUs of the send side's workers, as taskset lists them: 0-3,8 (default: all)",
    "recv_cpus": "CPUs of the receive side's workers, as taskset lists them (default: all)",
}


def add_cpu_arguments(parser: argparse.ArgumentParser, *names: str) -> None:
    """`names` of HELP."""
    add = parser.add_argument_group("where things are").add_argument
    for name in names:
        add(option_of(name), metavar="LIST", help=HELP[name])
    add(
        "--numa",
        metavar="NODE",
        help="NUMA node whose memory images and queue take, while it has any (default: the kernel's choice)",
    )


def read_numa(given: Given) -> int | None:
    """Raises UsageError for a node that is not there."""
    if not given.has("numa"):
        return None
    node = given.whole("numa", 0, MAX_NODE, 0)
    here = nodes_here()
    if node not in here:
        shown = ", ".join(map(str, here)) or "none that the kernel knows of"
        raise UsageError(f"--numa {node}: no such node; this host has {shown}")
    return node


@contextmanager
def memory_on(node: int | None) -> Iterator[None]:
    """Memory comes from this node meanwhile. Raises HostError."""
    if node is None:
        yield
        return
    try:
        prefer_node(node)
    except OSError as error:
        raise HostError(f"--numa {node}: set_mempolicy is refused ({error.strerror})") from error
    try:
        yield
    finally:
        prefer_node(None)


def placement_record(options: Options) -> dict[str, Any]:
    """On which NUMA nodes the CPUs of both sides, QAT devices and the link lie; empty or null where nobody
    knows."""
    link = None if options.to is None else interface_to(options.to.host)
    everywhere = frozenset(allowed_cpus())
    receivers = None if options.to is not None else nodes_of(options.recv_cpus or everywhere)
    return {
        "numa": options.numa,
        "send_nodes": nodes_of(options.send_cpus or everywhere),
        "recv_nodes": receivers,
        "qat_nodes": _qat_nodes(),
        "link": link,
        "link_node": None if link is None else node_of_interface(link),
    }


def read_cpus(given: Given, name: str) -> frozenset[int] | None:
    """None for all. Raises UsageError."""
    cpus = given.parsed(name, parse_cpus, frozenset[int]())
    if not cpus:
        return None
    strangers = cpus - allowed_cpus()
    if strangers:
        here = show_cpus(frozenset(allowed_cpus()))
        raise UsageError(
            f"{option_of(name)} {given.text(name)}: this process may not run on {show_cpus(strangers)}; "
            f"it may on {here}"
        )
    return cpus


def far_devices(cpus: frozenset[int] | None) -> str:
    """Which QAT devices lie on other NUMA nodes than CPUs; empty where none does, or nothing was chosen."""
    if cpus is None:
        return ""
    return far_apart(nodes_of(cpus), {f"QAT {address}": node for address, node in _qat_nodes().items()})


def _qat_nodes() -> dict[str, int]:
    """The NUMA node of each QAT device that has one, by address."""
    return {one.address: int(one.numa_node) for one in devices() if one.numa_node.isdigit()}
