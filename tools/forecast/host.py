"""A forecast for other hosts than this one, and this one's speeds for a forecast elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.cli.parser import Parser
from pipeline.cli.values import Given
from pipeline.errors import UsageError
from pipeline.forecast.host_profile import HostProfile, profile_toml, speed_of
from pipeline.forecast.situation import Candidate, Host, Plan
from pipeline.report.files import save_text
from pipeline.report.host import cpu_model
from tools.forecast.profiles import names, profile_named

HOST_OPTIONS = ("host_profile", "save_host_profile")
Method = tuple[str, int | None]


@dataclass(frozen=True)
class OtherHost:
    """Both ends are such hosts, or as this one without a profile. `target` is where to write this one's."""

    profile: HostProfile | None
    target: Path | None

    def methods(self, asked: Sequence[Method]) -> list[Method]:
        """With those that only the profile has: their ratio has to be measured here."""
        codecs = self.profile.codecs if self.profile else ()
        return [*asked, *(one for speed in codecs if (one := (speed.method, speed.level)) not in asked)]

    def candidates(self, measured: list[Candidate], zlib: Callable[[], list[Candidate]]) -> list[Candidate]:
        """At the profile's speeds; method qatzip on its devices, with the ratio of `zlib` on this guest."""
        profile = self.profile
        if profile is None:
            return measured
        found = [profile.at_its_speed(one) for one in measured]
        if profile.qat is not None:
            found += [profile.on_its_device(one) for one in zlib() if len(one.whole)]
        return found

    def host(self, here: Host) -> Host:
        """Two of the profile's hosts."""
        if self.profile is None:
            return here
        cpus = math.inf if self.profile.cpus is None else self.profile.cpus
        return replace(here, cpus=cpus, recv_cpus=cpus, one_host=False)

    def plan(self, asked: Plan) -> Plan:
        """Over the profile's link, unless one was asked for."""
        if self.profile is None or asked.link_bytes_per_second:
            return asked
        return replace(asked, link_bytes_per_second=self.profile.link_bytes_per_second)

    def notes(self) -> list[str]:
        """What has to be said beside the table."""
        if self.profile is None:
            return []
        return [
            f"modelled: the speed is that of {self.profile.title} ({self.profile.source}); "
            "a row without that word is at the speed of this host"
        ]

    def record(self) -> dict[str, Any] | None:
        """As the JSON has it."""
        return None if self.profile is None else {"label": "modelled", **asdict(self.profile)}

    def save(self, measured: list[Candidate], cpus: float) -> list[str]:
        """Write this host's speeds, if asked. Raises UsageError."""
        if self.target is None:
            return []
        speeds = [speed_of(one) for one in measured if one.method != "none"]
        codecs = tuple(one for one in speeds if one and min(one.compress_ns, one.decompress_ns) > 0)
        if not codecs:
            raise UsageError(f"--save-host-profile {self.target}: no page was seen that could be compressed")
        title = f"{cpu_model()}, {cpus:g} CPUs"
        text = profile_toml(HostProfile(title, "measured by ramferry forecast", cpus, 0, codecs, None))
        try:
            save_text(text, self.target)
        except OSError as error:
            raise UsageError(f"--save-host-profile {self.target}: {error.strerror}") from error
        return [f"host profile of this host: {self.target}"]


def add_host_arguments(parser: Parser) -> None:
    """Options of `OtherHost`."""
    add = parser.add_argument_group("which hosts").add_argument
    add(
        "--host-profile",
        metavar="NAME",
        help="two other hosts, with QAT devices where the profile has such: a TOML file, or "
        f"{', '.join(names())} (default: this host)",
    )
    add(
        *("--save-host-profile",),
        metavar="FILE",
        help="write how fast this host compresses, as such a file (default none)",
    )


def read_host(given: Given) -> OtherHost:
    """Raises UsageError."""
    name, target = given.text("host_profile"), given.new_file("save_host_profile")
    if target == "-":
        raise UsageError("--save-host-profile -: name a file")
    if name is not None:
        given.refuse(("save_host_profile",), "is of this host; leave out --host-profile")
    return OtherHost(None if name is None else profile_named(name), None if target is None else Path(target))
