"""Where and how something was measured, in one sentence."""

from __future__ import annotations

from typing import Any


def host_line(document: dict[str, Any]) -> str:
    """One sentence on where this was measured."""
    host = document["host"]
    devices = len(host["qat_devices"])
    return (
        f"Host: {host['cpus']} CPUs, {host['cpu_model']}, {host['memory_bytes'] >> 30} GiB, "
        f"Linux {host['kernel']}, Python {host['python']}, {devices or 'no'} QAT devices. "
        f"Command: `{' '.join(document['command'])}`"
    )
