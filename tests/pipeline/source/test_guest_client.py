from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from guestmem.content import Corpus
from guestmem.dirty_log import AUTO, KINDS, shared
from guestmem.dirty_log.contract import DirtyLog, GuestLog, LogKind, NoDirtyLog, Opening
from guestmem.guest import UNWATCHED, GuestSpec
from guestmem.ipc import Connection
from guestmem.ram import GuestRam
from guestmem.workload import Phase, steady
from pipeline.errors import HostError
from pipeline.processes.supervisor import Supervisor
from pipeline.source.guest_client import GuestClient

MIB = 1 << 20


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as found:
        yield found


@pytest.fixture
def spec(corpus: Path) -> GuestSpec:
    return GuestSpec(4 * MIB, Corpus(corpus, 0.9), steady(Phase(64 * MIB)))


def not_created(ram: GuestRam) -> GuestLog:
    raise NoDirtyLog("the guest has none")


def not_opened(opening: Opening) -> DirtyLog:
    raise NoDirtyLog("the migration has none")


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs that fail on either side, and then one that works."""
    working = shared.KIND
    for name in list(KINDS):
        monkeypatch.delitem(KINDS, name)
    monkeypatch.setitem(KINDS, "guestless", LogKind("", not_created, working.open))
    monkeypatch.setitem(KINDS, "blind", LogKind("", working.create, not_opened))
    monkeypatch.setitem(KINDS, "working", working)


@pytest.mark.usefixtures("kinds")
def test_auto_takes_the_first_log_that_works_on_both_sides(supervisor: Supervisor, spec: GuestSpec) -> None:
    gc.collect()
    descriptors = [len(os.listdir("/proc/self/fd"))]
    guests = []
    for log in ("working", AUTO):
        guests.append(GuestClient.start(supervisor, spec, log))
        descriptors.append(len(os.listdir("/proc/self/fd")))
    # Nothing stays open of the attempts that failed.
    assert descriptors[2] - descriptors[1] == descriptors[1] - descriptors[0]
    guest = guests[1]
    assert guest.log_kind == "working"
    pages = np.zeros(guest.source.pages, np.uint32)
    guest.order("run")
    while not guest.log.count():
        supervisor.wait(0.01)
    assert guest.log.sync(pages)


@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize(("name", "reason"), [("guestless", "the guest has"), ("blind", "the migration has")])
def test_a_named_log_that_cannot_be_had_is_one_line(
    name: str, reason: str, supervisor: Supervisor, spec: GuestSpec
) -> None:
    with pytest.raises(HostError, match=f"^--dirty-log {name}: {reason} none; --dirty-log auto takes one"):
        GuestClient.start(supervisor, spec, name)


def test_an_unwatched_guest_runs_without_a_log(supervisor: Supervisor, spec: GuestSpec) -> None:
    guest = GuestClient.start(supervisor, spec, UNWATCHED)
    assert guest.log_kind == UNWATCHED
    assert guest.order("run")["state"] == "running"


def test_how_far_a_new_guest_is_filled_is_handed_on(supervisor: Supervisor) -> None:
    ours, theirs = Connection.pair()
    ram, shares = GuestRam.create(MIB, "test"), list[float]()
    log = shared.SharedDirtyLog.create(ram.pages)
    for share in (0.25, 0.5):
        theirs.send({"kind": "filling", "share": share})
    ready = {"kind": "ready", "log": "shared", "log_fields": {}, "self_checking": False}
    theirs.send(ready, (ram.fd, *log.descriptors))
    guest = GuestClient(supervisor, supervisor.adopt("guest", "source", ours), "shared", shares.append)
    assert (shares, guest.log_kind, guest.source.pages) == ([0.25, 0.5], "shared", ram.pages)


@pytest.mark.parametrize(
    "answer",
    [
        {"kind": "ready"},
        {"kind": "ready", "log_fields": {}, "self_checking": False},
        {"kind": "filling"},
        {"kind": "filling", "share": "much"},
        {"kind": "no-log"},
    ],
)
def test_an_answer_that_cannot_be_read_is_one_line(answer: dict[str, object], supervisor: Supervisor) -> None:
    ours, theirs = Connection.pair()
    theirs.send(answer)
    worker = supervisor.adopt("guest", "source", ours)
    with pytest.raises(HostError, match="another version"):
        GuestClient(supervisor, worker, "shared", list[float]().append)
