"""What can be seen to be missing before a plan is carried out: names, certificates, namespaces, addresses."""

from __future__ import annotations

import errno
import socket
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.net.secret import read_secret
from pipeline.net.tls import CLIENT, SERVER, Tls

if TYPE_CHECKING:
    from tools.evacuate.plan_file import Host, Plan

NAMESPACES = Path("/run/netns")
"""Where `ip netns add` puts them (ip-netns(8))."""

NOT_OURS = (errno.EADDRNOTAVAIL, errno.ENETUNREACH)


@dataclass(frozen=True)
class Trust:
    """How both ends trust each other, as `send` and `recv` take it."""

    tls_dir: str | None = None
    secret: str | None = None
    insecure: bool = False

    @property
    def options(self) -> list[str]:
        found = [] if self.tls_dir is None else ["--tls-dir", self.tls_dir]
        found += [] if self.secret is None else ["--secret", self.secret]
        return [*found, *(["--insecure"] if self.insecure else [])]

    def check(self) -> None:
        """Of ends that are here. Raises UsageError."""
        if self.tls_dir is not None:
            for role in (CLIENT, SERVER):
                Tls(self.tls_dir, ()).context(role)
        if self.secret is not None:
            read_secret("--secret", self.secret)


def check_ready(plan: Plan, trust: Trust, *, has_cluster: bool) -> None:
    """Raises UsageError for what a plan lacks to be carried out. What is at a worker's is not looked at."""
    for vm in plan.vms:
        if vm.attach is None and vm.relayed is None:
            raise UsageError(f"vm {vm.name}: names neither attach nor qmp, so it cannot be moved")
    for host in plan.hosts.values():
        if not host.empty and host.address is None:
            raise UsageError(f"host {host.name}: address is missing: where its receivers listen")
        if host.worker is not None and not has_cluster:
            raise UsageError(f"host {host.name}: has a worker, so --execute needs --cluster")
    here = [host for host in plan.hosts.values() if host.worker is None]
    if here:
        trust.check()
    for host in here:
        _check_here(host)


def _check_here(host: Host) -> None:
    if host.netns is not None:
        if not (NAMESPACES / host.netns).exists():
            raise UsageError(f"host {host.name}: netns {host.netns}: no such namespace here (ip netns list)")
    elif host.address is not None and not host.empty and not _is_ours(host.address):
        raise UsageError(
            f"host {host.name}: address {host.address} is none of this machine's: name the host's worker"
        )


def _is_ours(address: str) -> bool:
    """Whether a receiver could listen there. Raises UsageError for a name that nobody knows."""
    try:
        found = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"address {address}: {error.strerror}") from error
    return any(_can_listen(family, place) for family, _, _, _, place in found)


def _can_listen(family: int, place: tuple[object, ...]) -> bool:
    with closing(socket.socket(family, socket.SOCK_STREAM)) as one:
        try:
            one.bind(place)
        except OSError as error:
            return error.errno not in NOT_OURS
    return True
