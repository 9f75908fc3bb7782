"""Two hosts on this one: network namespaces, a cable (veth) between them, and its speed (tc tbf)."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SOURCE_ADDRESS, DESTINATION_ADDRESS = "10.213.7.1", "10.213.7.2"
BURST_MS = 2


@functools.cache
def why_not() -> str:
    """Why there can be no namespaces here; empty when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"{tool} is missing: apt-get install iproute2"
    try:
        with cable(1000):
            return ""
    except subprocess.CalledProcessError as error:
        return f"{' '.join(error.cmd)}: {error.stderr.decode().strip()}"


def _name(end: str) -> str:
    return f"rf{os.getpid()}-{end}"


def _do(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=20)


@dataclass(frozen=True)
class Cable:
    """The two namespaces. `source` and `destination` are what a command is prefixed with."""

    source: tuple[str, ...]
    destination: tuple[str, ...]

    def link_local(self, end: str) -> str:
        """The fe80:: address of `source` or `destination`, once it can be used."""
        prefix = self.source if end == "source" else self.destination
        show = (
            *prefix,
            "ip",
            "-6",
            "-brief",
            "address",
            "show",
            "dev",
            "cable",
            "scope",
            "link",
            "-tentative",
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            shown = subprocess.run(
                show, check=True, capture_output=True, text=True, timeout=20
            ).stdout.split()
            if len(shown) > 2:
                return shown[2].partition("/")[0]
            time.sleep(0.1)
        raise AssertionError("the cable has no link-local address")

    def speed(self, mbit: int) -> None:
        """Both directions."""
        for end in (self.source, self.destination):
            burst = max(20_000, mbit * 125 * BURST_MS)
            _do(
                *(*end, "tc", "qdisc", "replace", "dev", "cable", "root", "tbf"),
                *("rate", f"{mbit}mbit", "burst", str(burst), "latency", "50ms"),
            )

    def shrink(self, mtu: int) -> None:
        """Frames above a size vanish on the way to the destination, which does not know of it."""
        network = f"{DESTINATION_ADDRESS.rpartition('.')[0]}.0/24"
        _do(*self.source, "ip", "link", "set", "cable", "gso_max_segs", "1")
        _do(*self.destination, "ip", "route", "replace", network, "dev", "cable", "advmss", "1460")
        _do(*self.destination, "ip", "link", "set", "cable", "mtu", str(mtu))

    def unplug(self) -> None:
        """Pull the plug."""
        _do(*self.source, "ip", "link", "set", "cable", "down")

    def unplugged(self, seconds: float) -> None:
        """Pull the plug for so long."""
        self.unplug()
        time.sleep(seconds)
        _do(*self.source, "ip", "link", "set", "cable", "up")


@contextmanager
def cable(mbit: int) -> Iterator[Cable]:
    """Two namespaces with a cable of a speed, taken away in the end."""
    ends = {"source": SOURCE_ADDRESS, "dest": DESTINATION_ADDRESS}
    try:
        for end in ends:
            _do("ip", "netns", "add", _name(end))
        _do(
            *("ip", "link", "add", "cable", "netns", _name("source"), "type", "veth"),
            *("peer", "name", "cable", "netns", _name("dest")),
        )
        for end, address in ends.items():
            within = ("ip", "netns", "exec", _name(end))
            _do(*within, "ip", "address", "add", f"{address}/24", "dev", "cable")
            _do(*within, "ip", "link", "set", "cable", "up")
            _do(*within, "ip", "link", "set", "lo", "up")
        here = Cable(("ip", "netns", "exec", _name("source")), ("ip", "netns", "exec", _name("dest")))
        here.speed(mbit)
        yield here
    finally:
        for end in ends:
            subprocess.run(["ip", "netns", "del", _name(end)], capture_output=True, check=False)
