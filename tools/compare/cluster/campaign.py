"""A campaign: the comparison's points on the hosts of a cluster, from the connection to its end."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import HostError, UsageError
from pipeline.processes.command import run_command
from qat.scripts import SCRIPTS
from tools.cluster.connect import LOCAL, ClusterAddress, connected
from tools.compare.cluster import machine
from tools.compare.cluster.fleet import Fleet, label_of
from tools.compare.cluster.job import Certificates, Look
from tools.compare.cluster.runner import FleetRunner
from tools.compare.results import Records
from tools.compare.scenario import Scenario
from tools.measuring.progress import say

HOSTS_SECONDS = 30.0
SETTLE_SECONDS = 2.0
"""Workers that were started together do not come in the same moment."""

STEP_SECONDS = 0.2
OPENSSL_SECONDS = 30.0
CERTIFICATE_NAME = "ramferry-campaign"
"""One name for all ends: each checks that the other is of this campaign, at whatever address it is."""


@dataclass(frozen=True)
class Campaign:
    """A fleet that is there, and what runs points on it."""

    hosts: Records
    runner: FleetRunner


@contextmanager
def campaign(where: ClusterAddress, scenario: Scenario, known: Records) -> Iterator[Campaign]:
    """Connect, and wait for the hosts: those that the scenario names, or all that are there.

    `known` are those of an earlier part of the campaign. Raises FerryError.
    """
    certificates = _certificates() if scenario.pairs is not None else None
    try:
        with connected(where) as client:
            fleet = Fleet(client, _local_label(scenario) if where.workers else label_of)
            records = _hosts(fleet, scenario, known)
            say(f"{len(fleet.workers)} workers; hosts: {', '.join(records)}")
            yield Campaign(records, FleetRunner(client, fleet, scenario, certificates))
    finally:
        if where.workers:
            machine.sweep()


def _local_label(scenario: Scenario) -> Callable[[Look], str]:
    """Workers of our own are one host, but in pairs each stands for one."""
    return lambda look: LOCAL if scenario.pairs is None else f"{LOCAL}-{int(look.name) + 1}"


def _hosts(fleet: Fleet, scenario: Scenario, known: Records) -> Records:
    """The record of every host that takes part. Raises UsageError when one does not come."""
    named = set(scenario.named_hosts())
    until = time.monotonic() + HOSTS_SECONDS
    settled = 0.0
    while True:
        fleet.refresh()
        labels = set(fleet.labels()) | known.keys()
        enough = named <= labels if named else len(labels) >= (2 if scenario.pairs else 1)
        here = time.monotonic()
        settled = settled or (here + (0 if named else SETTLE_SECONDS) if enough and fleet.workers else 0.0)
        if settled and here >= settled:
            records = {**known, **fleet.records()}
            return {label: records[label] for label in sorted(named or records)}
        if here > until:
            raise UsageError(_missing(named, labels, scenario))
        time.sleep(STEP_SECONDS)


def _missing(named: set[str], labels: set[str], scenario: Scenario) -> str:
    there = f"there {'are' if len(labels) > 1 else 'is'} {', '.join(sorted(labels)) or 'none'}"
    if named - labels:
        return f"hosts: {', '.join(sorted(named - labels))} have no worker at the scheduler; {there}"
    if scenario.pairs is not None:
        return f"pairs: need workers of two hosts; {there}"
    return "the scheduler has no worker with the resource ramferry=1 (docs/fleet.md)"


def _certificates() -> Certificates:
    """Certificates for this campaign alone. Raises HostError."""
    with tempfile.TemporaryDirectory(prefix="ramferry-certs-") as folder:
        made = Path(folder, "made")
        command = ["sh", str(SCRIPTS / "make_certs.sh"), str(made), CERTIFICATE_NAME]
        ended = run_command(command, OPENSSL_SECONDS)
        if ended.returncode != 0:
            raise HostError(f"no certificates for the pairs: {ended.stderr.strip()[:200]}")
        files = {path.name: path.read_text() for path in made.glob("*.pem") if path.name != "ca-key.pem"}
        return Certificates(CERTIFICATE_NAME, files)
