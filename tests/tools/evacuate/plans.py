"""Plans for tests."""

from __future__ import annotations

from tools.evacuate.plan_file import Plan, parse_plan

SOURCE = """
[[link]]
name = "up"
rate = "10Gbit"
[[host]]
name = "a"
links = ["up"]
empty = true
cpus = {cpus}
"""
HEAD = f"""{SOURCE.format(cpus=8)}
[[host]]
name = "b"
links = []
cpus = 8
memory = "64G"
address = "127.0.0.1"
"""


def vm(name: str, *lines: str, size: str = "4G", host: str = "a") -> str:
    return "\n".join(["[[vm]]", f'name = "{name}"', f'host = "{host}"', f'size = "{size}"', *lines, ""])


def plan(*vms: str, head: str = HEAD) -> Plan:
    return parse_plan(head + "".join(vms))
