"""Two hosts on this one: network namespaces with a cable (veth) between them, and its speed (tc tbf)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import HostError
from pipeline.processes.command import start_command
from tools.measuring.trial import command_of

SOURCE_ADDRESS, DESTINATION_ADDRESS = "10.213.8.1", "10.213.8.2"
PORT = 7000
"""Where the far end listens."""

BURST_MS = 2
LATENCY_MS = 50
COMMAND_SECONDS = 20
END_SECONDS = 30


@dataclass(frozen=True)
class Cable:
    """The two namespaces: what a command is prefixed with to run at either end."""

    source: tuple[str, ...]
    destination: tuple[str, ...]

    def speed(self, mbit_per_second: int) -> None:
        """In both directions. Raises HostError."""
        burst_bytes = max(20_000, mbit_per_second * 125 * BURST_MS)
        for end in (self.source, self.destination):
            _do(
                *(*end, "tc", "qdisc", "replace", "dev", "cable", "root", "tbf"),
                *("rate", f"{mbit_per_second}mbit", "burst", str(burst_bytes)),
                *("latency", f"{LATENCY_MS}ms"),
            )

    def no_limit(self) -> None:
        """As fast as this host is. Raises HostError."""
        for end in (self.source, self.destination):
            subprocess.run(
                [*end, "tc", "qdisc", "del", "dev", "cable", "root"], capture_output=True, check=False
            )


def why_not() -> str:
    """Why this host cannot have namespaces; empty when it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"{tool} is missing: apt-get install iproute2"
    try:
        with cable() as made:
            made.speed(1000)
    except HostError as error:
        return str(error)
    return ""


@contextmanager
def cable() -> Iterator[Cable]:
    """Two namespaces with a cable between them; they are gone in the end. Raises HostError."""
    _sweep()
    names = {end: f"ramferry-{os.getpid()}-{end}" for end in ("source", "destination")}
    addresses = {"source": SOURCE_ADDRESS, "destination": DESTINATION_ADDRESS}
    try:
        for name in names.values():
            _do("ip", "netns", "add", name)
        _do(
            *("ip", "link", "add", "cable", "netns", names["source"], "type", "veth"),
            *("peer", "name", "cable", "netns", names["destination"]),
        )
        for end, name in names.items():
            _do("ip", "-n", name, "address", "add", f"{addresses[end]}/24", "dev", "cable")
            _do("ip", "-n", name, "link", "set", "cable", "up")
            _do("ip", "-n", name, "link", "set", "lo", "up")
        within = {end: ("ip", "netns", "exec", name) for end, name in names.items()}
        yield Cable(within["source"], within["destination"])
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _sweep() -> None:
    """Take away the namespaces of a process that was killed."""
    for path in Path("/run/netns").glob("ramferry-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            subprocess.run(["ip", "netns", "del", path.name], capture_output=True, check=False)


@contextmanager
def receiver(wire: Cable, *options: str) -> Iterator[None]:
    """A receiver of one run at the far end, stopped in the end. The sender retries until it listens."""
    process = start_command(
        [*wire.destination, *command_of("pipeline.recv", *options, "--once", "--quiet")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _do(*words: str) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, timeout=COMMAND_SECONDS)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise HostError(f"no network namespaces here: {' '.join(words)}: {said}") from error
    except subprocess.TimeoutExpired as error:
        raise HostError(f"no network namespaces here: {' '.join(words)} does not end") from error
