"""Which VM goes to which host: where its links would be free first, with room and apart from its like."""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable

from pipeline.errors import UsageError
from pipeline.options import MAX_WORKERS
from tools.evacuate.fabric import Fabric
from tools.evacuate.plan_file import Host, Plan, Vm


class Placement:
    """Places VMs one after the other; remembers memory, groups and what each link will carry."""

    def __init__(self, plan: Plan, fabric: Fabric) -> None:
        self._plan, self._fabric = plan, fabric
        self._load = [0.0] * len(fabric.capacity)
        self._free = {host.name: host.memory_bytes for host in plan.hosts.values()}
        self._groups: dict[str, set[str]] = {host.name: set() for host in plan.hosts.values()}
        takers = [host for host in plan.hosts.values() if not host.empty]
        self._number = {host.name: at for at, host in enumerate(takers)}
        self._everywhere = [(0.0, at, host.name) for at, host in enumerate(takers)]
        self._zones: dict[str, list[tuple[float, int, str]]] = {}
        for at, host in enumerate(takers):
            for link in host.links:
                self._zones.setdefault(link, []).append((0.0, at, host.name))
        for heap in (self._everywhere, *self._zones.values()):
            heapq.heapify(heap)
        for vm, name in plan.settled:
            self._settle(vm, plan.hosts[name])

    def place(self, vm: Vm, bytes_on_wire: float) -> Host:
        """Raises UsageError where no host can take it."""
        source = self._plan.hosts[vm.host]
        found = [self._best(vm, self._everywhere, bytes_on_wire)]
        found += [
            self._best(vm, self._zones[link], bytes_on_wire) for link in source.links if link in self._zones
        ]
        fit = [host for host in found if host is not None]
        if not fit:
            why = f" apart from the others of {vm.apart}" if vm.apart else ""
            raise UsageError(
                f"vm {vm.name}: no host has {vm.size_bytes} bytes free for it{why}; add a host, or memory"
            )
        host = min(fit, key=lambda one: (self._until(source, one, bytes_on_wire), self._number[one.name]))
        self.put(vm, host, bytes_on_wire)
        return host

    def put(self, vm: Vm, host: Host, bytes_on_wire: float) -> None:
        """It goes there."""
        self._settle(vm, host)
        for one in self._fabric.path(self._plan.hosts[vm.host], host):
            self._load[one] += bytes_on_wire
        self._load[self._fabric.cpu[host.name]] += vm.size_bytes / 1e9

    def _settle(self, vm: Vm, host: Host) -> None:
        self._free[host.name] -= vm.size_bytes
        if vm.apart is not None:
            self._groups[host.name].add(vm.apart)

    def take_back(self, vm: Vm, host: Host) -> None:
        """It does not go there after all."""
        self._free[host.name] += vm.size_bytes
        self._groups[host.name].discard(vm.apart or "")

    def other(self, vm: Vm, without: Container[str]) -> Host | None:
        """The host with the most room among those that are not `without`; it is put there."""
        fit = [
            host
            for host in self._plan.hosts.values()
            if not host.empty and host.name not in without and self.fits(vm, host)
        ]
        host = max(fit, key=lambda one: self._free[one.name], default=None)
        if host is not None:
            self._settle(vm, host)
        return host

    def fits(self, vm: Vm, host: Host) -> bool:
        return vm.size_bytes <= self._free[host.name] and (
            vm.apart is None or vm.apart not in self._groups[host.name]
        )

    def _until(self, source: Host, host: Host, more: float) -> float:
        """When the last of the links between them would be free; CPUs count as a link does."""
        until = self._load[self._fabric.cpu[host.name]] / min(host.cpus, MAX_WORKERS)
        for one in self._fabric.path(source, host):
            until = max(until, (self._load[one] + more) / self._fabric.capacity[one])
        return until

    def _down(self, host: Host) -> float:
        loads = (self._load[one] / self._fabric.capacity[one] for one in self._fabric.down(host))
        return max(loads, default=0.0) + self._load[self._fabric.cpu[host.name]] * 1e-9

    def _best(self, vm: Vm, heap: list[tuple[float, int, str]], more: float) -> Host | None:
        """The one whose links in are free first. Loads only grow, so a key that is too low is put right when
        it comes up."""
        aside: list[tuple[float, int, str]] = []
        found = None
        while heap:
            key, number, name = heap[0]
            host = self._plan.hosts[name]
            now = self._down(host)
            if now > key:
                heapq.heapreplace(heap, (now, number, name))
            elif self.fits(vm, host):
                found = host
                break
            else:
                aside.append(heapq.heappop(heap))
        for one in aside:
            heapq.heappush(heap, one)
        return found


def placed(plan: Plan, fabric: Fabric, bytes_on_wire: Iterable[float]) -> list[Host]:
    """A destination for each VM of the plan, the largest placed first, those apart before others."""
    sizes = list(bytes_on_wire)
    placement = Placement(plan, fabric)
    order = sorted(
        range(len(plan.vms)), key=lambda at: (plan.vms[at].apart is None, -plan.vms[at].size_bytes)
    )
    found = {at: placement.place(plan.vms[at], sizes[at]) for at in order}
    return [found[at] for at in range(len(plan.vms))]
