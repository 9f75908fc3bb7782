"""What a tool needs of a monitor, whoever carries its commands."""

from __future__ import annotations

from typing import Any, Protocol


class Commands(Protocol):
    """QMP commands. `pipeline.qemu.monitor` speaks to QEMU itself, `pipeline.qemu.virsh` through libvirt."""

    def run(self, command: str, **arguments: Any) -> Any:
        """Its result; underscores in names stand for dashes. Raises MonitorError."""

    def capabilities(self) -> dict[str, bool]:
        """Those of migration. Raises MonitorError."""
