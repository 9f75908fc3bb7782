"""A rack out of network namespaces on this machine: hosts, two switches, and one uplink of a speed (tc tbf).

source hosts -- switch == uplink == switch -- hosts that take
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.errors import HostError

BURST_MS = 2
QUEUE = "10ms"
CONGESTION_CONTROL = "reno"
"""With a short queue: connections should come to fair shares soon, as the model has it. With BBR and a queue
of 50 ms VMs that should have shared alike took 44 % less to 90 % more than planned."""

NETWORK = "10.214.7"


@dataclass(frozen=True)
class Place:
    """A host: its namespace and its address."""

    name: str
    netns: str
    address: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """What a command is prefixed with to run there."""
        return ("ip", "netns", "exec", self.netns)


@dataclass(frozen=True)
class Rack:
    """Hosts that are emptied, and hosts that take."""

    sources: tuple[Place, ...]
    takers: tuple[Place, ...]
    uplink_mbit: int


def _do(*words: str) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, timeout=20)
    except subprocess.CalledProcessError as error:
        raise HostError(f"{' '.join(words)}: {error.stderr.decode().strip()}") from error


def check_tools() -> None:
    """Raises HostError."""
    if os.geteuid() != 0:
        raise HostError("network namespaces need root")
    for tool in ("ip", "tc", "sysctl"):
        if shutil.which(tool) is None:
            raise HostError(f"{tool} is missing: apt-get install iproute2 procps")


@contextmanager
def rack(sources: int, takers: int, uplink_mbit: int) -> Iterator[Rack]:
    """Taken away in the end. Raises HostError."""
    check_tools()
    mark = f"rr{os.getpid()}"
    near, far = f"{mark}-near", f"{mark}-far"
    places = [Place(f"a{at + 1}", f"{mark}-a{at + 1}", f"{NETWORK}.{at + 1}") for at in range(sources)]
    places += [Place(f"b{at + 1}", f"{mark}-b{at + 1}", f"{NETWORK}.{at + 101}") for at in range(takers)]
    made: list[str] = []
    try:
        for name in (near, far, *(place.netns for place in places)):
            _do("ip", "netns", "add", name)
            made.append(name)
        for switch in (near, far):
            _do("ip", "-n", switch, "link", "add", "switch", "type", "bridge")
            _do("ip", "-n", switch, "link", "set", "switch", "up")
        _cable(near, "uplink", far, "uplink")
        for switch in (near, far):
            _plug_in(switch, "uplink")
            _limit(switch, uplink_mbit)
        for place in places:
            switch = near if place in places[:sources] else far
            _cable(place.netns, "nic", switch, place.name)
            _plug_in(switch, place.name)
            _do("ip", "-n", place.netns, "address", "add", f"{place.address}/24", "dev", "nic")
            setting = f"net.ipv4.tcp_congestion_control={CONGESTION_CONTROL}"
            _do("ip", "netns", "exec", place.netns, "sysctl", "-qw", setting)
            for device in ("lo", "nic"):
                _do("ip", "-n", place.netns, "link", "set", device, "up")
        yield Rack(tuple(places[:sources]), tuple(places[sources:]), uplink_mbit)
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _cable(one: str, end: str, other: str, other_end: str) -> None:
    there: Sequence[str] = ("peer", "name", other_end, "netns", other)
    _do("ip", "link", "add", end, "netns", one, "type", "veth", *there)


def _plug_in(switch: str, device: str) -> None:
    _do("ip", "-n", switch, "link", "set", device, "master", "switch", "up")


def _limit(switch: str, mbit: int) -> None:
    burst = max(20_000, mbit * 125 * BURST_MS)
    rate = ("rate", f"{mbit}mbit", "burst", str(burst), "latency", QUEUE)
    _do("ip", "netns", "exec", switch, "tc", "qdisc", "replace", "dev", "uplink", "root", "tbf", *rate)
