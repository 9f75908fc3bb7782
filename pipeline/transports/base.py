"""What a transport is: it takes filled slots to the destination and says when they are applied.

The send side (`pipeline.source.send_side`) is the same for all. A transport is one class with the methods
below, in one file, with an entry in `TRANSPORTS` (`pipeline.transports`). The coordinator calls them in this
order:

    await_ready                  the destination has its pages, the workers are there
    for each round:  send side's send, then settle
    verify                       is the copy the source? off the clock
    commit                       the copy is good: it may go where its output is
    finish                       end the workers, and take what they measured
    abandon                      at any time, when the run has failed
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from guestmem.ipc import Message
from guestmem.ram import PageNumbers
from pipeline.packets.counters import Totals
from pipeline.processes.supervisor import WAIT_SECONDS, Supervisor, Worker
from pipeline.processes.usage import SideFigures
from pipeline.source.send_side import SendSide, Step

NO_PAGES: PageNumbers = np.zeros(0, np.uint32)


@dataclass(frozen=True)
class Readiness:
    """What the receive side says before the clock starts."""

    prealloc_ms: float | None
    fallback_reasons: set[str]
    simulated: bool
    huge_bytes: int

    @classmethod
    def await_all(
        cls,
        supervisor: Supervisor,
        workers: list[Worker],
        *,
        prealloc: bool,
        between: Callable[[], None] = lambda: None,
    ) -> Readiness:
        """Wait until all of the receive side's workers are ready. Raises what a wait raises."""
        messages: list[Message] = []
        for worker in workers:
            while (found := supervisor.take(worker, "ready")) is None:
                supervisor.wait(WAIT_SECONDS)
                between()
            messages.append(found[0])
        return cls.of(messages, prealloc=prealloc)

    @classmethod
    def of(cls, messages: list[Message], *, prealloc: bool) -> Readiness:
        """From what each of them said."""
        longest = max(float(message["prealloc_ms"]) for message in messages)
        reasons = {str(message["fallback_reason"]) for message in messages} - {""}
        return cls(
            longest if prealloc else None,
            reasons,
            any(message["simulated"] for message in messages),
            max(int(message["huge_bytes"]) for message in messages),
        )


@dataclass(frozen=True)
class RoundOutcome:
    """A round behind its barrier: when its last page was applied (seconds of the source's monotonic clock),
    and which of its pages were not, and have to go again."""

    applied_at: float
    missing: PageNumbers = field(default_factory=lambda: NO_PAGES)


@dataclass
class TransportFigures:
    """What the transport's own workers on the send side, and all of the receive side's, used inside the
    clock; what was applied; and what the transport has to report of itself."""

    send: SideFigures
    recv: SideFigures
    received: Totals
    fallback_reasons: set[str]
    record: dict[str, Any]


class Transport(Protocol):
    """See the module."""

    sending: SendSide

    def await_ready(self, between: Callable[[float], None]) -> Readiness:
        """Wait until the destination can take packets. `between` is called meanwhile with the share (0 to 1)
        of the destination that has its pages, where that is known. Raises FerryError."""

    def settle(self, number: int, pages: PageNumbers, step: Step, stands: Callable[[], bool]) -> RoundOutcome:
        """The barrier behind round `number` of `pages`: nothing of it is on its way when this returns.

        `stands` says whether the guest has stood still since they were listed.

        Raises what `step` raises, and FerryError.
        """

    def received(self) -> Totals:
        """What has been applied so far, as far as this side knows."""

    def verify(
        self, how: str, between: Callable[[float], None], unexplained: Callable[[PageNumbers], PageNumbers]
    ) -> dict[str, str]:
        """Check the copy by `images`, `invariant` or `both`: by check, what is wrong, or nothing.

        `between` is called meanwhile with the share (0 to 1) that is done. `unexplained` says which of the
        pages that differ may not: where the guest runs on, those that it has written since may.
        """

    def commit(self, dirty_pages: int) -> None:
        """The copy is complete, and good if that was asked: the receive side may put it where it belongs.

        `dirty_pages` were listed when the guest was paused for good.
        """

    def finish(self) -> TransportFigures:
        """End the transport's workers, and take what they measured."""

    def abandon(self, why: str) -> None:
        """The run has failed: let the receive side know, if it can be reached soon. Raises nothing."""
