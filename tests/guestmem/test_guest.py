from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from guestmem import content, guest, prefault
from guestmem.content import Corpus
from guestmem.guest import GuestSpec, NoSuchGuest, run_guest, visit
from guestmem.ipc import Connection, Message
from guestmem.workload import Phase, steady

MIB = 1 << 20


def told_until_ready(owner: Connection, log: str) -> list[Message]:
    """The guest's messages up to the answer to `open`."""
    owner.send({"kind": "open", "log": log})
    messages: list[Message] = []
    while not messages or messages[-1]["kind"] == "filling":
        message, descriptors = owner.receive()
        messages.append(message)
        for descriptor in descriptors:
            os.close(descriptor)
    return messages


def small_guest(corpus: Path) -> tuple[Connection, threading.Thread]:
    """A guest of 8 MiB in a thread of its own, filled in steps of 256 KiB."""
    owner, theirs = Connection.pair()
    spec = GuestSpec(8 * MIB, Corpus(corpus, 0.9), steady(Phase(MIB)))
    thread = threading.Thread(target=run_guest, args=(theirs, spec))
    thread.start()
    return owner, thread


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefault, "CHUNK_BYTES", MIB // 4)
    monkeypatch.setattr(content, "CHUNK_BYTES", MIB // 4)


@pytest.mark.usefixtures("small_steps")
def test_the_owner_is_told_how_far_the_filling_is(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "FILLING_SECONDS", 0.0)
    owner, thread = small_guest(corpus)
    *filling, ready = told_until_ready(owner, "shared")
    assert (ready["kind"], ready["log"]) == ("ready", "shared")
    shares = [message["share"] for message in filling]
    assert shares == sorted(shares)
    assert len(shares) > 50
    assert 0 < shares[0] < 0.1
    assert shares[-1] == pytest.approx(1)
    owner.close()
    thread.join()


@pytest.mark.usefixtures("small_steps")
def test_the_owner_is_not_told_too_often(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "FILLING_SECONDS", 3600.0)
    owner, thread = small_guest(corpus)
    assert [message["kind"] for message in told_until_ready(owner, "shared")] == ["filling", "ready"]
    owner.close()
    thread.join()


@pytest.mark.usefixtures("small_steps")
def test_a_guest_whose_owner_is_gone_is_not_made_to_the_end(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest, "FILLING_SECONDS", 0.0)
    monkeypatch.setattr(Corpus, "fill", None)
    owner, theirs = Connection.pair()
    owner.close()
    run_guest(theirs, GuestSpec(8 * MIB, Corpus(corpus, 0.9), steady(Phase(MIB))))


def test_a_log_is_given_back_and_another_can_be_had(corpus: Path) -> None:
    owner, thread = small_guest(corpus)
    told_until_ready(owner, "shared")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert told_until_ready(owner, "shared")[-1]["kind"] == "ready"
    assert len(os.listdir("/proc/self/fd")) == before
    assert told_until_ready(owner, guest.UNWATCHED)[-1]["log_fields"] == {}
    assert len(os.listdir("/proc/self/fd")) < before
    owner.close()
    thread.join()


def test_a_guest_that_is_not_there_is_named() -> None:
    with pytest.raises(NoSuchGuest, match="nobody"):
        visit(f"nobody-{os.getpid()}")
