"""Where a guest is found, and how it is named in the commands to type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipeline.forecast.seen import Seen
from pipeline.progress import Progress


@dataclass(frozen=True)
class Typed:
    """What names this guest in the commands to type: the options of `pipeline.run`, or the VM of a monitor or
    of libvirt."""

    run_options: str = ""
    is_vm: bool = False
    domain: str = "DOMAIN"
    uri: str | None = None
    by_libvirt: bool = False


class Source(Protocol):
    """Where to look."""

    @property
    def typed(self) -> Typed:
        """For the commands to type."""

    def look(self, progress: Progress) -> Seen:
        """Raises FerryError."""
