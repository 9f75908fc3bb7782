"""A rack out of network namespaces on this machine: hosts, two switches, and one uplink of a speed (tc htb).

source hosts -- switch == uplink == switch -- hosts that take

Migrations that share the uplink get equal parts of it (htb: deficit round robin), as fair queueing gives
them and as plans have it. In one short queue connections of TCP came to fair parts only after some seconds:
VMs that should have shared alike took 44 % less to 90 % more than planned with BBR, up to 40 % more with
Reno.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

from pipeline.errors import HostError

BURST_MS = 2
QUEUE_MS = 20
"""Of a migration with the uplink to itself."""

CONGESTION_CONTROL = "reno"
FIRST_PORT, PORTS = 7100, 16
"""Migrations are told apart by their destination's port, as tools.evacuate gives them; 16 at each at most."""

FIRST_CLASS, OTHERS = 0x10, 0xF
QUANTUM = 65536
"""Bytes that a class may send at its turn: a large packet of veth's."""

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


def _do(*words: str, text: str = "") -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, timeout=20, input=text.encode())
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
        _plug_in(near, "uplink")
        _plug_in(far, "uplink")
        _limit(near, uplink_mbit, "dst", "dport", [place.address for place in places[sources:]])
        _limit(far, uplink_mbit, "src", "sport", [place.address for place in places[sources:]])
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


def _limit(switch: str, mbit: int, end: str, port: str, takers: Sequence[str]) -> None:
    """One class a migration; `end` and `port` say where a packet has the address and port of its taker."""
    burst = max(20_000, mbit * 125 * BURST_MS)
    lines = [f"qdisc add dev uplink root handle 1: htb default {OTHERS:x}"]
    rate = f"burst {burst} cburst {burst}"
    lines.append(f"class add dev uplink parent 1: classid 1:1 htb rate {mbit}mbit {rate}")
    classes = [OTHERS, *range(FIRST_CLASS, FIRST_CLASS + len(takers) * PORTS)]
    share = mbit * 1000 // len(classes)
    for one in classes:
        own = f"htb rate {share}kbit ceil {mbit}mbit quantum {QUANTUM} {rate}"
        lines.append(f"class add dev uplink parent 1:1 classid 1:{one:x} {own}")
        lines.append(f"qdisc add dev uplink parent 1:{one:x} bfifo limit {mbit * 125 * QUEUE_MS}")
    for at, (address, number) in enumerate(product(takers, range(FIRST_PORT, FIRST_PORT + PORTS))):
        match = f"match ip {end} {address}/32 match ip {port} {number} 0xffff"
        flow = f"flowid 1:{FIRST_CLASS + at:x}"
        lines.append(f"filter add dev uplink parent 1: protocol ip prio 1 u32 {match} {flow}")
    _do("ip", "netns", "exec", switch, "tc", "-batch", "-", text="\n".join(lines) + "\n")
