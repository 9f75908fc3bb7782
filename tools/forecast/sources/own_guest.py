"""A guest of ours: one that runs under a name, or one that is made to be looked at."""

from __future__ import annotations

import functools
import shlex
from dataclasses import dataclass

from guestmem.guest import GuestSpec
from pipeline.forecast.look import look as look_at
from pipeline.forecast.seen import Seen
from pipeline.forecast.situation import Host
from pipeline.options import GuestOptions
from pipeline.processes.cgroup import usable_cpus
from pipeline.processes.memory import check_memory
from pipeline.processes.signals import signals_cancel
from pipeline.processes.supervisor import Supervisor
from pipeline.progress import Progress, Stage
from pipeline.source.guest_client import GuestClient
from tools.forecast.sources.seen import Typed


def here() -> Host:
    """Both ends on this host."""
    cpus = usable_cpus()
    return Host(cpus, cpus, one_host=True)


@dataclass(frozen=True)
class NamedGuest:
    """The guest that `tools.dirtyrate --create NAME` keeps running."""

    name: str

    @property
    def typed(self) -> Typed:
        return Typed(f"--attach {shlex.quote(self.name)}")

    def look(self, progress: Progress) -> Seen:
        """Raises FerryError."""
        with Supervisor() as supervisor, signals_cancel(supervisor):
            return watched(GuestClient.attach(supervisor, self.name, "auto"), progress)


@dataclass(frozen=True)
class MadeGuest:
    """A guest that is made, and writes as its options say, which `words` are as they were given."""

    options: GuestOptions
    words: str

    @property
    def typed(self) -> Typed:
        return Typed(self.words)

    def look(self, progress: Progress) -> Seen:
        """Raises FerryError."""
        with Supervisor() as supervisor, signals_cancel(supervisor):
            link = made(supervisor, self.options, progress)
            link.order("run")
            return watched(link, progress)


def made(supervisor: Supervisor, options: GuestOptions, progress: Progress) -> GuestClient:
    """A guest with its RAM filled, that does not write yet. Raises FerryError."""
    check_memory(options.size_bytes, 1, 0, 1, options.advice)
    progress.say(f"filling {options.size_bytes >> 20} MiB of guest RAM")
    spec = GuestSpec(options.size_bytes, options.content(), options.workload, huge_pages=True)
    return GuestClient.start(supervisor, spec, "auto", functools.partial(progress.reach, Stage.FILLING))


def watched(link: GuestClient, progress: Progress) -> Seen:
    """A guest that runs, watched for 3.5 s."""
    progress.say("looking at the guest for 3.5 s")
    seen = look_at(link.source, link.log, link.pid, link.rest)
    facts = {"look_seconds": seen.took_seconds}
    return Seen(seen.guest, here(), seen.whole, seen.written, facts, gauges=seen.gauges)
