"""Whole runs, as a user starts them: every method, live and idle, prealloc and lazy."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from pipeline.codecs import METHODS
from tests.support.harness import Run, migrate, run

SIZE = 24 << 20
PAGES = SIZE // 4096


@pytest.mark.parametrize("workers", [(1, 1), (2, 2), (4, 2), (1, 3)])
@pytest.mark.parametrize("prealloc", ["--prealloc", None])
@pytest.mark.parametrize("rate", ["0", "40M"])
@pytest.mark.parametrize("method", METHODS)
def test_every_combination_arrives(
    method: str, rate: str, prealloc: str | None, workers: tuple[int, int]
) -> None:
    channels, receivers = workers
    result = migrate(
        *("--size", str(SIZE), "--method", method, "--dirty-rate", rate),
        *("--channels", str(channels), "--receivers", str(receivers)),
        *([prealloc] if prealloc else []),
    )
    check_sums(result)
    faults = result["recv"]["minor_faults"]
    if prealloc:
        # A receiver's own start costs some 200 faults, whatever the size of the guest.
        assert faults < PAGES / 100 + 400 * receivers
        assert result["time"]["prealloc_ms"] > 0
    else:
        assert faults > 0.8 * PAGES * 0.9375
        assert result["time"]["prealloc_ms"] is None


def check_sums(result: dict[str, object]) -> None:
    """What must hold between the figures of any completed run."""
    traffic, rounds, options = result["traffic"], result["rounds"], result["options"]
    assert isinstance(traffic, dict)
    assert isinstance(rounds, list)
    assert isinstance(options, dict)
    assert traffic["guest_bytes"] == traffic["normal_pages"] * 4096
    for key in ("normal_pages", "zero_pages", "wire_bytes"):
        assert traffic[key] == sum(one[key] for one in rounds)
    assert rounds[0]["pages"] == options["size_bytes"] // 4096
    assert [one["round"] for one in rounds] == list(range(1, len(rounds) + 1))
    assert all(one["pages"] == one["normal_pages"] + one["zero_pages"] for one in rounds)
    assert traffic["pages_per_second_peak"] >= traffic["pages_per_second_mean"] > 0
    if traffic["normal_pages"]:
        assert traffic["compression_ratio"] == traffic["guest_bytes"] / traffic["wire_bytes"]


@pytest.mark.parametrize("method", METHODS)
def test_a_guest_that_hammers_its_pages(method: str) -> None:
    """All of a small RAM is rewritten many times a round; no packet may fail to decode."""
    arguments = ("--size", "4M", "--method", method, "--dirty-rate", "16G", "--channels", "2")
    paced = ("--max-bandwidth", "16M")  # a round is long enough for the guest to get a CPU on a busy host
    ended = run(*arguments, *paced, "--downtime-limit", "0.001", "--max-rounds", "30", "--json", "-")
    assert ended.code in (0, 3), ended.err  # 0 when a sync falls between two of its batches
    assert len(ended.result["rounds"]) >= 3
    result = migrate(*arguments)
    assert len(result["rounds"]) >= 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 4096, 5 * 1000 * 4096])
def test_sizes_that_are_no_multiple_of_the_packet(method: str, size: int) -> None:
    check_sums(migrate("--size", str(size), "--method", method, "--dirty-rate", "4M"))


@pytest.mark.parametrize("method", METHODS)
def test_all_zero_ram(method: str) -> None:
    result = migrate("--size", "16M", "--filled", "0", "--dirty-rate", "0", "--method", method)
    traffic = result["traffic"]
    assert (traffic["normal_pages"], traffic["zero_pages"]) == (0, 4096)
    assert traffic["compression_ratio"] is None
    assert traffic["wire_bytes"] < 20_000


@pytest.mark.parametrize("method", METHODS)
def test_incompressible_ram(method: str, noise: Path) -> None:
    result = migrate(
        *("--size", "16M", "--fill", str(noise), "--filled", "1", "--dirty-rate", "2M"),
        *("--method", method),
    )
    traffic = result["traffic"]
    # The guest may have written one page's bytes to two pages of a packet; that compresses.
    assert traffic["raw_packets"] >= (0 if method == "none" else 0.7 * traffic["packets"])
    assert 0.98 < traffic["compression_ratio"] < 1.05


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("packet", ["4K", "12K", "4M"])
def test_packet_sizes(method: str, packet: str) -> None:
    result = migrate("--size", "8M", "--packet-size", packet, "--method", method, "--dirty-rate", "4M")
    check_sums(result)
    first_round = {"4K": 2048, "12K": 683, "4M": 2}[packet]
    assert result["traffic"]["packets"] >= first_round


def test_an_image_is_carried_over(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    data = random.Random(4).randbytes(1 << 20) + bytes(3 << 20)
    path.write_bytes(data)
    result = migrate("--image", str(path), "--dirty-rate", "0")
    assert result["options"]["size_bytes"] == 4 << 20
    assert result["traffic"]["normal_pages"] == 256


def test_a_corpus_is_carried_over(corpus: Path) -> None:
    for path in (corpus, corpus / "text"):
        check_sums(migrate("--fill", str(path), "--filled", "0.5", "--size", "8M", "--dirty-rate", "0"))


@pytest.mark.parametrize("depth", [1, 2, 40])
def test_any_queue_depth(depth: int) -> None:
    arguments = ("--size", "16M", "--queue-depth", str(depth), "--channels", "3", "--receivers", "2")
    migrate(*arguments)
    migrate(*arguments, "--max-bandwidth", "60M", "--dirty-rate", "1M")


def test_many_workers() -> None:
    check_sums(migrate("--size", "16M", "--channels", "64", "--receivers", "64"))


def test_the_wire_is_limited() -> None:
    result = migrate("--size", "16M", "--method", "none", "--max-bandwidth", "20M", "--dirty-rate", "0")
    assert result["traffic"]["throughput_mbps"] <= 20 * 1.048576 * 8 * 1.01
    slow = migrate("--size", "2M", "--method", "none", "--max-bandwidth", "2M", "--dirty-rate", "0")
    assert slow["traffic"]["throughput_mbps"] <= 2 * 1.048576 * 8 * 1.02
    assert slow["traffic"]["packets"] >= 2 * (1 << 20) * 0.9 / (0.1 * 2 * (1 << 20))


def test_the_guest_writes_before_and_during() -> None:
    result = migrate("--size", "32M", "--dirty-rate", "16M", "--method", "zlib", "--downtime-limit", "5")
    assert result["guest"]["state"] == "paused"
    assert result["guest"]["writes"] > 0
    assert any(one["dirty_pages_per_second"] > 0 for one in result["rounds"])
    assert len(result["rounds"]) >= 2


def test_workers_hold_little_beside_the_images() -> None:
    result = migrate("--size", "256M", "--prealloc", "--method", "qatzip", "--dirty-rate", "0")
    for side in ("send", "recv"):
        assert 0 < result[side]["private_bytes_max"] < 48 << 20


@pytest.mark.parametrize("transport", ["queue", "tcp"])
def test_workers_stay_on_the_cpus_that_they_are_given(transport: str) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    first, last = allowed[0], allowed[-1]
    options = ("--size", "64M", "--method", "zlib", "--max-bandwidth", "4M", "--transport", transport)
    running = Run(*options, "--send-cpus", str(first), "--recv-cpus", str(last), "--json", "-")
    running.wait_for("starting")
    channel, receiver = running.one("rf channel 0"), running.one("rf receiver")
    time.sleep(0.2)
    assert os.sched_getaffinity(channel) == {first}
    assert os.sched_getaffinity(receiver) == {last}
    assert os.sched_getaffinity(running.one("rf guest")) == set(allowed)
    os.kill(running.process.pid, signal.SIGINT)
    ended = running.end()
    assert ended.result["options"]["send_cpus"] == [first]


def test_cpus_that_this_process_has_not_are_named() -> None:
    ended = run("--size", "16M", "--send-cpus", "4000-4001")
    assert ended.code == 2 and "may not run on 4000-4001" in ended.errors[0]
