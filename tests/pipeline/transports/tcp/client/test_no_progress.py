"""When connections that bring nothing over are given up."""

from __future__ import annotations

import pytest

from pipeline.errors import RunFailed
from pipeline.net.address import Address
from pipeline.transports.tcp.client import no_progress
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.client.no_progress import LIVED_SECONDS, NoProgress, Unanswered

PEER = Peer(Address("192.0.2.1", 7000), None, 30.0, 60.0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(no_progress, "time", clock)
    return clock


def test_packets_that_never_arrive(clock: Clock) -> None:
    seen = NoProgress(PEER)
    seen.welcomed(0, sent=False)
    for _ in range(5):
        clock.now += 5.5
        seen.welcomed(0, sent=True)
    clock.now += 5.5
    with pytest.raises(RunFailed, match=r"applied for 33 s.*ping -M do -s 1472 192\.0\.2\.1.*firewall"):
        seen.welcomed(0, sent=True)


@pytest.mark.parametrize("progress", [{"packets": 1, "sent": True}, {"packets": 0, "sent": False}])
def test_a_packet_that_arrives_or_a_connection_that_had_nothing_to_send(
    progress: dict[str, int], clock: Clock
) -> None:
    seen = NoProgress(PEER)
    seen.welcomed(0, sent=False)
    for attempt in range(20):
        clock.now += 10
        if attempt % 2:
            seen.welcomed(progress["packets"] * attempt, sent=bool(progress["sent"]))
        else:
            seen.welcomed(progress["packets"] * max(0, attempt - 1), sent=True)


def test_an_answer_that_never_arrives(clock: Clock) -> None:
    waiting = Unanswered(PEER)
    for _ in range(5):
        clock.now += 5.5
        waiting.lost(asked=True)
        waiting.connected()
    clock.now += 5.5
    with pytest.raises(RunFailed, match="no answer arrived for 33 s"):
        waiting.lost(asked=True)


@pytest.mark.parametrize("lived", [5.0, LIVED_SECONDS + 1])
def test_a_network_that_only_breaks_often(lived: float, clock: Clock) -> None:
    waiting = Unanswered(PEER)
    for _ in range(20):
        clock.now += lived
        waiting.lost(asked=lived > LIVED_SECONDS)
        waiting.connected()
