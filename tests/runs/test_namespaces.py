"""Two network namespaces and a cable between them: what a real link does, without another machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import Run
from tests.support.network import DESTINATION_ADDRESS, SOURCE_ADDRESS, Cable, cable, why_not
from tests.support.two_hosts import certificates, receiver, send

pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not()), pytest.mark.long]

LISTEN = f"{DESTINATION_ADDRESS}:7000"
GUEST = ("--size", "192M", "--dirty-rate", "8M", "--json", "-")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = certificates(tmp_path_factory.mktemp("tls") / "lab", SOURCE_ADDRESS, DESTINATION_ADDRESS)
    return ("--tls-dir", str(folder))


@pytest.fixture
def gigabit() -> Iterator[Cable]:
    with cable(1000) as made:
        yield made


def migrated(link: Cable, tls: tuple[str, ...], *arguments: str, unplugged: int = 0) -> dict[str, Any]:
    """A live guest over the cable, the plug pulled for a second so many times."""
    with receiver(*tls, "--prealloc", listen=LISTEN, prefix=link.destination) as here:
        running = send(LISTEN, *GUEST, *arguments, *tls, prefix=link.source)
        if unplugged:
            here.run.wait_for("run of")
        for _ in range(unplugged):
            time.sleep(0.7)
            link.unplugged(1.0)
        ended = running.end()
        assert ended.code == 0, ended.err
        assert here.end().code == 0
    assert ended.result["verified"] is True
    assert ended.result["transport"]["tls"] == "1.3"
    return ended.result


@pytest.mark.parametrize("method", ["none", "zstd"])
def test_a_live_guest_over_a_gigabit(method: str, gigabit: Cable, tls: tuple[str, ...]) -> None:
    result = migrated(gigabit, tls, "--method", method)
    assert result["transport"]["channels"][0]["round_trip_ms"] > 0
    assert result["options"]["to"] == LISTEN


def test_a_live_guest_over_a_link_that_drops_twice(gigabit: Cable, tls: tuple[str, ...]) -> None:
    result = migrated(gigabit, tls, "--method", "none", "--channels", "3", unplugged=2)
    assert result["transport"]["retransmits"] > 0


@pytest.mark.parametrize("secure", [True, False])
def test_link_local_addresses_with_zones(secure: bool, gigabit: Cable, tmp_path: Path) -> None:
    """Each end names the interface as it is called on its own host."""
    there = gigabit.link_local("destination")
    how: tuple[str, ...] = ("--insecure",)
    if secure:
        folder = certificates(tmp_path / "lab", gigabit.link_local("source"), there)
        how = ("--tls-dir", str(folder))
    with receiver(*how, listen=f"[{there}%cable]:0", prefix=gigabit.destination) as here:
        assert here.address.startswith(f"[{there}%cable]:")
        ended = send(here.address, *GUEST, *how, "--size", "16M", prefix=gigabit.source).end()
        assert ended.code == 0, ended.err
        assert f"run of [{gigabit.link_local('source')}%cable]:" in here.end().err


def test_method_auto_sees_a_slow_link(tls: tuple[str, ...]) -> None:
    """Nobody tells it the bandwidth."""
    with cable(100) as slow:
        result = migrated(slow, tls, "--method", "auto")
    assert result["traffic"]["compression_ratio"] > 2
    assert result["auto"]["switches"]


def test_method_auto_does_not_fill_a_slow_link_before_it_knows_it(tls: tuple[str, ...]) -> None:
    """At 2 Mbit/s the first megabytes would take half a minute as they are; a packet or two is compressed
    quickly, the rest as well as it goes."""
    with cable(2) as slow, receiver(*tls, "--once", listen=LISTEN, prefix=slow.destination):
        how = ("--size", "8M", "--dirty-rate", "0", "--method", "auto", "--json", "-")
        ended = send(LISTEN, *how, *tls, prefix=slow.source).end()
    assert ended.code == 0, ended.err
    packets = {one["level"]: one["packets"] for one in ended.result["auto"]["candidates"]}
    assert ended.result["traffic"]["raw_packets"] == 0
    assert packets.get(1, 0) <= 4 and max(packets) >= 12


@pytest.mark.parametrize("secure", [True, False])
def test_a_path_on_which_large_packets_vanish(secure: bool, gigabit: Cable, tls: tuple[str, ...]) -> None:
    """Connections are made as ever, and nothing comes over them; with TLS not even the certificates."""
    tls = tls if secure else ("--insecure",)
    with receiver(*tls, "--once", listen=LISTEN, prefix=gigabit.destination) as here:
        limits = ("--reconnect", "8", "--max-bandwidth", "24M", "--method", "none", "--delta", "0")
        running = send(LISTEN, *GUEST, *limits, *tls, prefix=gigabit.source)
        here.run.wait_for("run of")
        time.sleep(1)
        gigabit.shrink(700)
        ended = running.end(60)
        assert ended.code == 1
        assert len(ended.errors) == 1
        why = "no connection within 8 s" if secure else "nothing of what was sent was applied for"
        assert why in ended.errors[0]
        assert "check the MTU" in ended.errors[0] and "firewall" in ended.errors[0]
        assert secure or ("broke (stalled" in ended.err and "was made again" in ended.err)
        assert "check the MTU" in "".join(here.end(30).errors)


def test_a_link_that_stays_down_ends_both_sides(gigabit: Cable, tls: tuple[str, ...], tmp_path: Path) -> None:
    output = tmp_path / "copy"
    receive = ("--reconnect", "2", "--once", "--output", str(output))
    with receiver(*tls, *receive, listen=LISTEN, prefix=gigabit.destination) as here:
        running = send(LISTEN, *GUEST, "--reconnect", "2", "--method", "none", *tls, prefix=gigabit.source)
        here.run.wait_for("run of")
        time.sleep(0.7)
        gigabit.unplug()
        ended = running.end(30)
        assert ended.code == 1
        assert len(ended.errors) == 1, ended.err
        assert here.end(30).code == 1
    assert not output.exists()


@pytest.mark.parametrize("mbit", [5, 100, 1000])
def test_a_probe_finds_what_the_cable_carries(mbit: int, tls: tuple[str, ...], tmp_path: Path) -> None:
    earlier = tmp_path / "run.json"
    arguments = ("--size", "16M", "--dirty-rate", "0", "--method", "none", "--json", str(earlier), "--quiet")
    assert Run(*arguments).end().code == 0
    with cable(mbit) as link, receiver(*tls, listen=LISTEN, prefix=link.destination) as here:
        asked = ("--result", str(earlier), "--probe", LISTEN, "--channels", "2", "--json", "-", *tls)
        ended = Run(*asked, module="tools.forecast", prefix=link.source).end()
        assert ended.code == 0, ended.err
        here.stop()
    assert ended.result["plan"]["link_bytes_per_second"] * 8 / 1e6 == pytest.approx(mbit, rel=0.15)
    assert ended.result["plan"]["link_noise"] < 0.3
