"""Which CPUs workers run on, and which NUMA nodes those, the QAT devices and the link lie on.

A host with QAT has two sockets as a rule, and a worker far from its device or its network card pays for the
way. Layouts: /sys/devices/system/node/nodeN/cpulist, and numa_node of a device (Linux Documentation/ABI).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
SYS = Path("/sys")


def parse_cpus(text: str) -> frozenset[int]:
    """CPUs as taskset(1) lists them: `0-3,8`. Raises ValueError."""
    found: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ValueError("must be CPUs as taskset lists them, such as 0-3,8")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last <= 1 << 16:
            raise ValueError(f"{part}: the range is empty")
        found.update(range(first, last + 1))
    return frozenset(found)


def show_cpus(cpus: frozenset[int]) -> str:
    """The same in text."""
    parts, left = [], sorted(cpus)
    while left:
        count = next((n for n in range(1, len(left)) if left[n] != left[0] + n), len(left))
        parts.append(str(left[0]) if count == 1 else f"{left[0]}-{left[count - 1]}")
        left = left[count:]
    return ",".join(parts)


def stay_on(cpus: frozenset[int] | None) -> None:
    """This process, and those that it forks, run on these CPUs only. Raises OSError."""
    if cpus is not None:
        os.sched_setaffinity(0, cpus)


def nodes_of(cpus: frozenset[int], sysfs: Path = SYS) -> list[int]:
    """The NUMA nodes that CPUs lie on; empty where the kernel knows of none."""
    found = []
    for folder in sysfs.glob("devices/system/node/node[0-9]*"):
        try:
            here = parse_cpus((folder / "cpulist").read_text().strip())
        except (OSError, ValueError):
            continue  # a node without CPUs has an empty list
        if here & cpus:
            found.append(int(folder.name.removeprefix("node")))
    return sorted(found)


def node_of_interface(name: str, sysfs: Path = SYS) -> int | None:
    """The NUMA node of a network card; None where it has none."""
    try:
        node = int((sysfs / f"class/net/{name}/device/numa_node").read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None


def far_apart(nodes: list[int], others: dict[str, int | None]) -> str:
    """What of `others`, by name, lies on none of the nodes, in words; empty when nothing does."""
    far = [
        f"{name} on node {node}" for name, node in others.items() if node is not None and node not in nodes
    ]
    if not nodes or not far:
        return ""
    return f"CPUs lie on node {', '.join(map(str, nodes))}, {' and '.join(far)}"
