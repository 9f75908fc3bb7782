"""All that one forecast found: as a document, and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from guestmem.page import PAGE_BYTES
from guestmem.units import show_size
from pipeline.forecast.bands import Forecast, best
from pipeline.forecast.seen import Seen
from pipeline.transports.tcp.client.probe_client import LinkRate
from tools.forecast.advice import Question, break_evens, link_words, recommendation, render
from tools.forecast.commands import Block

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Findings:
    """What was asked, what was seen, and what it comes to. `links` are the forecasts by link; `blocks` what
    to type; `rate` is the link where it was probed; `by_virsh`: virsh carried what QEMU was asked."""

    question: Question
    seen: Seen
    found: list[Forecast]
    links: dict[int, list[Forecast]]
    blocks: list[Block]
    rate: LinkRate | None = None
    by_virsh: bool = False
    host_profile: dict[str, Any] | None = None
    """Of other hosts, where they were asked for."""

    @property
    def chosen(self) -> Forecast:
        return best(self.found)

    @property
    def recommendation(self) -> str:
        return recommendation(self.found)

    @property
    def break_evens(self) -> str:
        return break_evens(self.links)

    @property
    def asked(self) -> str:
        """Guest, link and limit in a line."""
        plan = self.question.plan
        link = plan.link_bytes_per_second
        over = f"a link of {link_words(link)}" if link else "a link without a limit"
        limit = plan.qemu_limit_bytes_per_second
        over += f", QEMU's max-bandwidth at {link_words(limit)}" if limit else ""
        return (
            f"A guest of {show_size(self.seen.guest.ram_pages * PAGE_BYTES)}, "
            f"{self.seen.guest.zero_share:.0%} of it zero pages, over {over}, "
            f"with a downtime of at most {plan.policy.downtime_limit_ms:g} ms."
        )

    @property
    def probed(self) -> str:
        """The link as it was measured; empty where it was given."""
        if self.rate is None:
            return ""
        low, high = min(self.rate.stretches), max(self.rate.stretches)
        connections = "1 connection" if self.rate.connections == 1 else f"{self.rate.connections} connections"
        return (
            f"The link carried {link_words(self.rate.bytes_per_second)} over {connections}, from "
            f"{link_words(low)} to {link_words(high)} within an eighth of a second."
        )

    @property
    def cost(self) -> str:
        """What the look took, and what it cost the guest; empty where there was none."""
        seconds, cost = self.seen.facts.get("look_seconds"), self.seen.facts.get("cost")
        if seconds is None:
            return ""
        took = f"The look took {seconds:.1f} s"
        if cost is None:
            return f"{took}."
        if cost["how"] == "file":
            return f"{took}; memory was read out of its file, which held nothing in QEMU."
        all_of_it = f"{cost['total_ms']:.0f} ms in all, {cost['longest_ms']:.1f} ms at most"
        if self.by_virsh:
            return (
                f"{took}; {cost['calls']} reads of memory took {all_of_it}, virsh's own time with it: "
                "they held QEMU's lock for less."
            )
        return f"{took}; {cost['calls']} reads of memory held QEMU's lock for {all_of_it}."

    def document(self) -> dict[str, Any]:
        """As JSON: `forecast` is of the one that is recommended."""
        guest, plan = self.seen.guest, self.question.plan
        return {
            "schema_version": SCHEMA_VERSION,
            "status": "completed",
            "error": None,
            "guest": {
                "ram_bytes": guest.ram_pages * PAGE_BYTES,
                "zero_share": guest.zero_share,
                "written_zero_share": guest.written_zero_share,
                "sync_ms": guest.sync_ms,
                "cpus": guest.cpus,
                "curve": {"seconds": guest.curve.seconds, "pages": guest.curve.pages},
                **self.seen.facts,
            },
            "probe": None if self.rate is None else asdict(self.rate),
            "plan": {
                "link_bytes_per_second": plan.link_bytes_per_second,
                "link_noise": plan.link_noise,
                "max_bandwidth_bytes_per_second": plan.qemu_limit_bytes_per_second,
                "downtime_limit_ms": plan.policy.downtime_limit_ms,
            },
            "notes": list(self.seen.notes),
            "host_profile": self.host_profile,
            "forecast": self.chosen.record(),
            "forecasts": [one.record() for one in self.found],
            "by_link": {str(link): [one.record() for one in row] for link, row in self.links.items()},
            "recommendation": self.recommendation,
            "break_evens": self.break_evens,
            "commands": [{"title": title, "lines": lines} for title, lines in self.blocks],
        }

    def text(self) -> str:
        """For a terminal."""
        notes = [f"note: {note}" for note in self.seen.notes]
        typed = [f"{title}:\n" + "\n".join(f"  {line}" for line in lines) for title, lines in self.blocks]
        said = [one for one in (self.probed, self.cost) if one]
        parts = [render(self.found), *notes, *said, self.recommendation, self.break_evens, *typed]
        return "\n\n".join(parts)
