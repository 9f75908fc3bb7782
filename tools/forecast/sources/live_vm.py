"""A VM that QEMU runs, by its monitor's socket or through libvirt."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import HostError
from pipeline.forecast.seen import Seen
from pipeline.forecast.vm.look_through import look_through
from pipeline.progress import Progress
from pipeline.qemu.connect import monitor_at
from pipeline.qemu.monitor import MonitorError
from pipeline.qemu.virsh import VirshMonitor
from tools.forecast.sources.seen import Typed


@dataclass(frozen=True)
class MonitoredVm:
    """A VM by its monitor's socket."""

    path: str

    @property
    def typed(self) -> Typed:
        return Typed(is_vm=True)

    def look(self, progress: Progress) -> Seen:
        """Some 7 s at a VM. Raises HostError for one that is being migrated, or a monitor that fails."""
        where = f"--qmp {self.path}"
        progress.say("looking at the VM for some 7 s")
        try:
            with monitor_at(self.path) as monitor:
                return look_through(monitor, where, monitor.peer_pid)
        except MonitorError as error:
            raise HostError(f"{where}: {error}") from error


@dataclass(frozen=True)
class LibvirtVm:
    """A VM whose monitor libvirt owns."""

    domain: str
    uri: str | None

    @property
    def typed(self) -> Typed:
        return Typed(is_vm=True, domain=self.domain, uri=self.uri, by_libvirt=True)

    def look(self, progress: Progress) -> Seen:
        """As that of a monitored VM."""
        where = f"--libvirt {self.domain}"
        progress.say("looking at the VM, through libvirt, for some 10 s")
        try:
            return look_through(VirshMonitor(self.domain, self.uri), where, None)
        except MonitorError as error:
            raise HostError(f"{where}: {error}") from error
