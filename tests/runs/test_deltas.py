"""Deltas in whole runs: every method and transport, guests of many kinds, links that break."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from guestmem.trace import Trace
from pipeline.codecs import METHODS
from tests.support.harness import migrate, run
from tests.support.two_hosts import Proxy, certificates, proxy, receiver, send

SIZE = "64M"
LIVE = ("--dirty-rate", "1M", "--dirty-pattern", "hotspot:0.9,0.2", "--write-bytes", "512")
"""2048 pages a second, of a fifth of RAM as a rule."""

PACED = ("--size", SIZE, "--max-bandwidth", "24M", "--delta", SIZE, "--json", "-")


@pytest.mark.parametrize("transport", ["queue", "tcp"])
@pytest.mark.parametrize("method", [*METHODS, "auto"])
@pytest.mark.parametrize("guest", [("--dirty-rate", "0"), LIVE], ids=["idle", "live"])
def test_every_method_with_deltas(method: str, transport: str, guest: tuple[str, ...]) -> None:
    result = migrate(*PACED[:-2], *guest, "--method", method, "--transport", transport)
    assert result["verified"] is True
    delta = result["delta"]
    assert (delta["pages"] > 0) == (guest is LIVE)
    assert sum(one["delta"]["pages"] for one in result["rounds"]) == delta["pages"]
    if guest is LIVE:
        assert delta["saved_bytes"] > delta["bytes"]
        assert result["traffic"]["normal_pages"] >= delta["pages"]


@pytest.mark.parametrize(
    "guest",
    [
        ("--dirty-rate", "2K", "--write-bytes", "1"),
        ("--dirty-rate", "8M"),
        ("--dirty-rate", "8M", "--dirty-content", "zero"),
        ("--dirty-rate", "8M", "--dirty-content", "delta"),
        ("--preset", "self-check", "--dirty-rate", "8M", "--verify", "both"),
    ],
    ids=["one byte a page", "whole pages", "to zero", "words", "self-check"],
)
def test_guests_of_many_kinds(guest: tuple[str, ...]) -> None:
    result = migrate(*PACED[:-2], *guest, "--method", "zstd", "--prealloc")
    assert result["verified"] is True


@pytest.mark.parametrize("budget", ["4K", "1M", "1G"])
def test_any_budget(budget: str) -> None:
    result = migrate("--size", SIZE, "--max-bandwidth", "24M", "--delta", budget, *LIVE, "--method", "zstd")
    assert result["verified"] is True
    assert result["delta"]["budget_bytes"] == min(
        64 << 20, {"4K": 4096, "1M": 1 << 20, "1G": 1 << 30}[budget]
    )


def test_without_a_limit_there_are_none_unless_they_are_asked_for() -> None:
    assert migrate("--size", SIZE, *LIVE)["delta"] is None
    assert migrate("--size", SIZE, *LIVE, "--max-bandwidth", "64M", "--delta", "0")["delta"] is None
    assert migrate("--size", SIZE, *LIVE, "--max-bandwidth", "64M")["delta"]["budget_bytes"] == 32 << 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--delta", "1K"), "--delta 1K: must be 4K to"),
        (("--delta", "much"), "--delta much: "),
        (("--delta", "-1"), "--delta -1: "),
        (("--delta", "1M", "--transport", "tcp", "--method", "none", "--zero-copy"), "leave out --zero-copy"),
        (("--preset", "trace:/no/such/file"), "No such file"),
        (("--preset", "trace:/etc/passwd"), "is no trace of a guest"),
        (("--preset", "trace:x", "--size", "64M"), "leave this out"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(arguments: tuple[str, ...], said: str) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert said in ended.errors[0]
    assert len(ended.errors) == 1


def breaks(network: Proxy, chance: random.Random, done: threading.Event) -> None:
    """Cut some connection, again and again."""
    while not done.is_set():
        time.sleep(chance.uniform(0.05, 0.5))
        pipes = network.pipes[:]
        if pipes:
            chance.choice(pipes).cut(reset=chance.random() < 0.5)


def migrate_over_breaks(seed: int, *more: str) -> int | None:
    """A run over a link that breaks; how many pages went as deltas. None where it did not converge, or was
    never called back: that ends a run in a line, and makes no wrong page."""
    chance, done = random.Random(seed), threading.Event()
    with receiver(*more) as here, proxy(here.port) as network:
        running = send(
            network.address, *PACED, *LIVE, "--method", chance.choice(["zstd", "none", "auto"]), *more
        )
        network.wait_for(3, 1 << 16)
        breaker = threading.Thread(target=breaks, args=(network, chance, done))
        breaker.start()
        try:
            ended = running.end(120)
        finally:
            done.set()
            breaker.join()
        if ended.code:
            assert ended.code == 3 or "no connection within" in ended.err, ended.err
            return None
        assert ended.result["verified"] is True
        assert here.end().code == 0
        return int(ended.result["delta"]["pages"])


@pytest.mark.parametrize("secure", [False, True])
def test_a_link_that_breaks_again_and_again(secure: bool, tmp_path: Path) -> None:
    more = ("--tls-dir", str(certificates(tmp_path / "certs", "127.0.0.1"))) if secure else ()
    assert migrate_over_breaks(1, *more) is not None


@pytest.mark.long
def test_a_hundred_migrations_with_random_breaks_have_no_wrong_page() -> None:
    with ThreadPoolExecutor(3) as pool:  # the link holds each of them up
        found = list(pool.map(migrate_over_breaks, range(100)))
    assert sum(pages is not None for pages in found) >= 90
    assert sum(bool(pages) for pages in found) > 50


def a_trace(path: Path) -> Path:
    """A guest of 16 MiB: a counter in each of 500 pages, and 20 pages that are new each time."""
    chance = np.random.default_rng(1)
    image = chance.integers(1, 1 << 20, (3000, 512), dtype=np.uint64)
    first = image.copy()
    hot, fresh = np.arange(100, 600), np.arange(2000, 2020)
    pages, words = [], []
    for number in range(6):
        image[hot, 7] = number + 1
        image[fresh] = chance.integers(0, 1 << 63, (20, 512), dtype=np.uint64)
        pages.append(np.concatenate([hot, fresh]).astype(np.uint32))
        words.append(image[pages[-1]].copy())
    numbers = np.arange(3000, dtype=np.uint32)
    counts = np.full(6, 520, np.int64)
    trace = Trace(4096, numbers, first, np.full(6, 0.2), counts, np.concatenate(pages), np.concatenate(words))
    trace.save(path)
    return path


def test_a_trace_is_replayed(tmp_path: Path) -> None:
    path = a_trace(tmp_path / "guest.trace")
    result = migrate("--preset", f"trace:{path}", "--max-bandwidth", "4M", "--method", "zstd")
    assert result["verified"] is True
    assert result["options"]["size_bytes"] == 16 << 20
    assert result["delta"]["pages"] > 400
    assert result["guest"]["bytes_per_second_reached"] == pytest.approx(520 * 4096 / 0.2, rel=0.2)
