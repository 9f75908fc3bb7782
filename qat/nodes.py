"""Whether every NUMA node that has CPUs has a QAT device: requests from others cross between sockets."""

from __future__ import annotations

from qat.checkup import OK, WARNING, Finding, Host, without_physical


def check_nodes(host: Host) -> Finding:
    """Which nodes the devices lie on, of those with CPUs (/sys/devices/system/node)."""
    if not host.physical:
        return without_physical("nodes", host)
    cpus = {}
    for folder in sorted((host.root / "sys/devices/system/node").glob("node[0-9]*")):
        text = host.text(str((folder / "cpulist").relative_to(host.root)))
        if text:
            cpus[folder.name.removeprefix("node")] = text
    near = {device.numa_node for device in host.physical if device.numa_node in cpus}
    if not near or len(cpus) < 2 or len(near) == len(cpus):
        where = f"on node {', '.join(sorted(near))}" if near else "on no node in particular"
        return Finding("nodes", OK, f"devices {where}, as all CPUs are" if near else f"devices {where}")
    there = ",".join(cpus[node] for node in sorted(near))
    return Finding(
        "nodes",
        WARNING,
        f"devices lie on node {', '.join(sorted(near))}, CPUs on {', '.join(sorted(cpus))}",
        f"run with --send-cpus {there} --numa {min(near)}, so that no request crosses between sockets",
    )
