"""What migrations share: each direction of each link, and each host's CPUs and QAT devices."""

from __future__ import annotations

from dataclasses import dataclass

from tools.evacuate.plan_file import Host, Plan


@dataclass(frozen=True)
class Resource:
    """`kind` is up or down (of a link, seen from a host outwards), cpu or qat (of a host). `capacity` is
    bytes a second, or CPUs."""

    kind: str
    name: str
    capacity: float

    @property
    def label(self) -> str:
        return f"{self.name} {self.kind}"


class Fabric:
    """Resources by number."""

    def __init__(self, plan: Plan) -> None:
        self.resources: list[Resource] = []
        self._up = {one.name: self._add("up", one.name, one.bytes_per_second) for one in plan.links.values()}
        self._down = {
            one.name: self._add("down", one.name, one.bytes_per_second) for one in plan.links.values()
        }
        self.cpu = {one.name: self._add("cpu", one.name, one.cpus) for one in plan.hosts.values()}
        self.qat = {
            one.name: self._add("qat", one.name, one.qat_devices * one.profile.qat.device_bytes_per_second)
            for one in plan.hosts.values()
            if one.profile.qat is not None and one.qat_devices
        }
        self.capacity = [one.capacity for one in self.resources]

    def _add(self, kind: str, name: str, capacity: float) -> int:
        self.resources.append(Resource(kind, name, capacity))
        return len(self.resources) - 1

    def up(self, host: Host) -> list[int]:
        return [self._up[link] for link in host.links]

    def down(self, host: Host) -> list[int]:
        return [self._down[link] for link in host.links]

    def path(self, source: Host, destination: Host) -> tuple[int, ...]:
        """Links that both hosts hang on are not crossed: what joins them turns back there."""
        shared = set(source.links) & set(destination.links)
        up = (self._up[link] for link in source.links if link not in shared)
        return (*up, *(self._down[link] for link in destination.links if link not in shared))

    def rate(self, path: tuple[int, ...]) -> float:
        """Bytes a second with the path to itself; 0 is no limit."""
        return min((self.capacity[one] for one in path), default=0.0)
