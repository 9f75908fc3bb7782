"""What can be seen to be missing before a plan is carried out: names, certificates, namespaces, addresses."""

from __future__ import annotations

import errno
from pathlib import Path

from guestmem.guest import NoSuchGuest, visit
from pipeline.errors import UsageError
from pipeline.net.address import parse_address
from pipeline.net.secret import read_secret
from pipeline.net.tls import CLIENT, SERVER, Tls
from tools.evacuate.plan_file import Host, Plan, Vm
from tools.evacuate.trust import Trust

NAMESPACES = Path("/run/netns")
"""Where `ip netns add` puts them (ip-netns(8))."""

NOT_OURS = (errno.EADDRNOTAVAIL, errno.ENETUNREACH)


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
    sources, takers = _in_use(plan)
    _check_trust(trust, source=any(map(_is_here, sources)), taker=any(map(_is_here, takers)))
    for host in filter(_is_here, (*sources, *takers)):
        if host.netns is not None:
            _check_namespace(host)
    for host in filter(_is_here, takers):
        if host.netns is None:
            _check_address(host)
    for vm in plan.vms:
        _check_vm(vm, plan.hosts[vm.host], all_takers_here=all(map(_is_here, takers)))


def _check_trust(trust: Trust, *, source: bool, taker: bool) -> None:
    """What it names can be read, for a source and a destination that are here."""
    if trust.tls_dir is not None:
        for role, is_here in ((CLIENT, source), (SERVER, taker)):
            if is_here:
                Tls(trust.tls_dir, ()).context(role)
    if trust.secret is not None and (source or taker):
        read_secret("--secret", trust.secret)


def _in_use(plan: Plan) -> tuple[list[Host], list[Host]]:
    """Hosts that still have VMs, and hosts that may take some."""
    names = {vm.host for vm in plan.vms}
    hosts = plan.hosts.values()
    return [host for host in hosts if host.name in names], [host for host in hosts if not host.empty]


def _is_here(host: Host) -> bool:
    return host.worker is None


def _check_vm(vm: Vm, source: Host, *, all_takers_here: bool) -> None:
    """A guest and the monitors of a VM that are here answer."""
    if vm.relayed is not None:
        sockets = {"qmp": vm.relayed.qmp} if _is_here(source) else {}
        sockets |= {"incoming_qmp": vm.relayed.incoming_qmp} if all_takers_here else {}
        for key, path in sockets.items():
            if not Path(path).is_socket():
                raise UsageError(f"vm {vm.name}: {key} {path}: no such socket; start that QEMU first")
    elif vm.attach is not None and _is_here(source) and source.netns is None:
        try:
            visit(vm.attach).close()
        except NoSuchGuest as error:
            raise UsageError(f"vm {vm.name}: {error}") from error


def _check_namespace(host: Host) -> None:
    if not (NAMESPACES / str(host.netns)).exists():
        raise UsageError(f"host {host.name}: netns {host.netns}: no such namespace here (ip netns list)")


def _check_address(host: Host) -> None:
    """A receiver can listen there."""
    said = f"host {host.name}: address {host.address}"
    if ":" in str(host.address) and not str(host.address).startswith("["):
        raise UsageError(f'{said}: an IPv6 address stands in brackets, as "[{host.address}]"')
    try:
        parse_address(f"{host.address}:0").listen().close()
    except (ValueError, UnicodeError) as error:
        raise UsageError(f"{said}: {error}") from error
    except OSError as error:
        if error.errno in NOT_OURS:
            raise UsageError(f"{said} is none of this machine's: name the host's worker") from error
        raise UsageError(f"{said}: {error}") from error
