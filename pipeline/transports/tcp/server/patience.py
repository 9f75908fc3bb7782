"""How long a session waits for its sender, and what it says when that is over.

the sender has said HELLO and opens no run              HELLO_SECONDS
control is lost while a run goes on, and not back       --reconnect
control is there, but nothing is sent and nothing asked  IDLE_SECONDS, and what a digest of RAM takes
"""

from __future__ import annotations

import time

from pipeline.errors import RunFailed
from pipeline.transports.tcp.protocol import HELLO_SECONDS

IDLE_SECONDS = 120.0

DIGEST_BYTES_PER_SECOND = 256 << 20
"""A sender asks nothing while it makes digests of its RAM, which no host does more slowly."""


class Patience:
    """One sender's; times of the monotonic clock."""

    def __init__(self, reconnect_seconds: float) -> None:
        self._reconnect_seconds = reconnect_seconds
        self._idle_seconds = IDLE_SECONDS
        self._asked_at = time.monotonic()
        self._lost_at: float | None = None
        self._lost_why = ""
        self._packets = -1

    def asked(self) -> None:
        """The sender has asked for something."""
        self._asked_at = time.monotonic()

    def since_asked(self) -> float:
        """Seconds since the sender asked last."""
        return time.monotonic() - self._asked_at

    def run_opened(self, ram_bytes: int) -> None:
        """Digests of so much RAM may keep the sender busy."""
        self._idle_seconds = IDLE_SECONDS + ram_bytes / DIGEST_BYTES_PER_SECOND

    def control_lost(self, why: str) -> None:
        self._lost_at, self._lost_why = time.monotonic(), why

    def control_back(self) -> None:
        self._lost_at = None

    def control_is_gone(self, *, run_is_open: bool) -> bool:
        """Whether the sender has had its time to come back."""
        patience = self._reconnect_seconds if run_is_open else 0.0
        return self._lost_at is not None and time.monotonic() - self._lost_at > patience

    def check_offered(self) -> None:
        """Raises RunFailed for a sender that opens no run."""
        if self.control_is_gone(run_is_open=False):
            raise RunFailed(
                f"the sender left before it opened a run ({self._lost_why}); if it did not fit, it says why"
            )
        if self.since_asked() > HELLO_SECONDS:
            raise RunFailed(f"the sender opened no run within {HELLO_SECONDS:g} s")

    def check_running(self, packets: int, *, setting_up: bool) -> None:
        """`packets` have come so far. Raises RunFailed for a sender that is gone, or does nothing."""
        if self.control_is_gone(run_is_open=True):
            raise RunFailed(
                f"the sender is gone ({self._lost_why}) and did not come back for "
                f"{self._reconnect_seconds:g} s; what it had sent is deleted"
            )
        if packets != self._packets or setting_up:
            self._packets = packets
            self.asked()
        elif self.since_asked() > self._idle_seconds:
            raise RunFailed(f"the sender neither sent nor asked anything for {self._idle_seconds:.0f} s")
