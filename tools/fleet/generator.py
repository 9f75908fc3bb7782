"""Plans to judge a planner by: the same text for the same seed and sizes, on every host.

Racks of hosts behind shared uplinks; one rack in four (at least one, never all) is emptied. With one uplink
the hosts that take stand outside of the rack, behind nothing but their own NICs.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

SIZES_GIB = (2, 4, 8, 16, 32, 64)
SIZE_WEIGHTS = (10, 25, 30, 20, 10, 5)
NICS_GBIT = (10, 25)
OVERSUBSCRIBED = (2, 4, 8)
"""What the NICs of a rack carry, beside its uplink."""

PRESETS = ("idle-desktop", "database", "build")
PRESET_SHARE = 0.6
APART_SHARE = 0.2
GROUP_VMS = 3
ROOM = 1.6
"""Free memory of all that take, beside what comes."""

MOST_VMS, MOST_HOSTS = 200_000, 20_000


@dataclass(frozen=True)
class Shape:
    """How large a plan is."""

    vms: int
    hosts: int
    uplinks: int


def generate(seed: int, shape: Shape) -> str:
    """PLAN.toml."""
    chance = random.Random(seed)
    nic, oversubscribed = chance.choice(NICS_GBIT), chance.choice(OVERSUBSCRIBED)
    cpus = chance.choice((8, 16, 32))
    emptied = max(1, shape.uplinks // 4)
    sources, takers = _racks(shape, emptied)
    emptied_hosts = set(sources)
    hosts_a_rack = max(1, len(sources) // emptied)
    uplink = max(1, hosts_a_rack * nic // oversubscribed)
    sizes = [chance.choices(SIZES_GIB, SIZE_WEIGHTS)[0] for _ in range(shape.vms)]
    memory = max(2 * max(sizes), round(ROOM * sum(sizes) / len(takers)) + max(sizes))
    lines = [
        f'title = "{shape.vms} VMs, {shape.hosts} hosts, {shape.uplinks} uplinks, seed {seed}"',
        *("", "[limits]", f"downtime = {chance.choice((200, 300, 500))}", "streams_a_host = 4"),
    ]
    for rack in range(shape.uplinks):
        lines += ["", "[[link]]", f'name = "rack{rack}"', f'rate = "{uplink}Gbit"']
    for name, behind in (*sources, *takers):
        shared = "" if behind is None else f', "rack{behind}"'
        lines += ["", "[[link]]", f'name = "{name}-nic"', f'rate = "{nic}Gbit"']
        lines += ["", "[[host]]", f'name = "{name}"', f'links = ["{name}-nic"{shared}]', f"cpus = {cpus}"]
        lines.append("empty = true" if (name, behind) in emptied_hosts else f'memory = "{memory}G"')
    groups: Counter[str] = Counter()
    for number, size in enumerate(sizes):
        found, group = _vm(chance, number, size, chance.choice(sources)[0])
        lines += found
        if group is not None and groups[group] < len(takers):
            groups[group] += 1
            lines.append(f'apart = "{group}"')
    return "\n".join(lines) + "\n"


def _racks(shape: Shape, emptied: int) -> tuple[list[tuple[str, int | None]], list[tuple[str, int | None]]]:
    """Hosts with their racks: those to be emptied, and those that take."""
    if shape.uplinks == 1:
        many = max(1, shape.hosts // 2)
        return (
            [(f"a{number}", 0) for number in range(many)],
            [(f"b{number}", None) for number in range(shape.hosts - many)],
        )
    sources: list[tuple[str, int | None]] = []
    takers: list[tuple[str, int | None]] = []
    for number in range(shape.hosts):
        rack = number % shape.uplinks
        (sources if rack < emptied else takers).append((f"h{number}", rack))
    return sources, takers


def _vm(chance: random.Random, number: int, gib: int, host: str) -> tuple[list[str], str | None]:
    """Its lines, and the group that it may be of."""
    lines = ["", "[[vm]]", f'name = "vm{number}"', f'host = "{host}"', f'size = "{gib}G"']
    lines.append(f"zero_share = {chance.uniform(0, 0.5):.2f}")
    lines.append(f"ratio = {chance.uniform(1.3, 4):.2f}")
    if chance.random() < PRESET_SHARE:
        lines.append(f'preset = "{chance.choice(PRESETS)}"')
    else:
        lines.append(f'dirty_rate = "{round(2 ** chance.uniform(2, 8))}M"')
        lines.append(f'working_set = "{max(64, round(gib * 1024 * chance.uniform(0.02, 0.4)))}M"')
    apart = chance.random() < APART_SHARE
    return lines, f"group{number // (GROUP_VMS * 5)}" if apart else None
