"""Where and how something was measured, in words."""

from __future__ import annotations

from typing import Any


def host_words(host: dict[str, Any]) -> str:
    """The host of a result document."""
    devices = len(host["qat_devices"])
    return (
        f"{host['cpus']} CPUs, {host['cpu_model']}, {host['memory_bytes'] >> 30} GiB, "
        f"Linux {host['kernel']}, Python {host['python']}, {devices or 'no'} QAT devices"
    )


def host_line(document: dict[str, Any]) -> str:
    """Where a document's figures were measured, and with which command."""
    return f"Host: {host_words(document['host'])}. Command: `{' '.join(document['command'])}`"
