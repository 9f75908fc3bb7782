"""The part of a command line about where processes run: CPUs, and what lies on which NUMA node."""

from __future__ import annotations

import argparse

from pipeline.cli.values import Given, option_of
from pipeline.errors import UsageError
from pipeline.processes.cgroup import allowed_cpus
from pipeline.processes.placement import far_apart, nodes_of, parse_cpus, show_cpus
from qat.host import devices

HELP = {
    "send_cpus": "CPUs of the send side's workers, as taskset lists them: 0-3,8 (default: all)",
    "recv_cpus": "CPUs of the receive side's workers, as taskset lists them (default: all)",
}


def add_cpu_arguments(parser: argparse.ArgumentParser, *names: str) -> None:
    """`names` of HELP."""
    add = parser.add_argument_group("where processes run").add_argument
    for name in names:
        add(option_of(name), metavar="LIST", help=HELP[name])


def read_cpus(given: Given, name: str) -> frozenset[int] | None:
    """None for all. Raises UsageError."""
    cpus = given.parsed(name, parse_cpus, frozenset[int]())
    if not cpus:
        return None
    strangers = cpus - allowed_cpus()
    if strangers:
        here = show_cpus(frozenset(allowed_cpus()))
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
    nodes = {f"QAT {one.address}": int(one.numa_node) for one in devices() if one.numa_node.isdigit()}
    return far_apart(nodes_of(cpus), dict(nodes))
