"""A guest that is visited: leases, and visitors that mean harm."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from guestmem.content import Corpus
from guestmem.guest import MAX_CLIENTS, GuestSpec, run_guest, socket_address, visit
from guestmem.ipc import Connection, Message, PeerGone
from guestmem.workload import Phase, steady

NAME = f"test-guest-{os.getpid()}"


class Guest:
    """A named guest in a process of its own; `visitor` is an open visit."""

    def __init__(self) -> None:
        self.owner, theirs = Connection.pair()
        self.pid = os.fork()
        if self.pid == 0:
            self.owner.close()
            try:
                run_guest(theirs, GuestSpec(1 << 20, Corpus(None, 1.0), steady(Phase(1 << 20)), NAME))
            finally:
                os._exit(0)
        theirs.close()
        self.order(self.owner, "open", log="none")
        self.order(self.owner, "run")

    def order(self, connection: Connection, kind: str, **fields: object) -> Message:
        connection.send({"kind": kind, **fields})
        while True:
            message, descriptors = connection.receive()
            for descriptor in descriptors:
                os.close(descriptor)
            if message["kind"] != "filling":
                return message

    def end(self) -> None:
        self.owner.close()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return
            time.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError("the guest did not end with its owner")


@pytest.fixture
def guest() -> Iterator[Guest]:
    found = Guest()
    yield found
    found.end()


class TestLeases:
    def test_a_lease_that_runs_out_lets_the_guest_run_and_is_told(self, guest: Guest) -> None:
        visitor = visit(NAME)
        guest.order(visitor, "open", log="shared")
        assert guest.order(visitor, "pause", lease=7, seconds=0.3)["state"] == "paused"
        writes = guest.order(visitor, "ask")["writes"]
        time.sleep(0.8)
        state = guest.order(visitor, "renew", lease=7, seconds=5)
        assert (state["state"], state["lease"]) == ("running", 0)
        assert state["writes"] > writes
        assert guest.order(visitor, "hold", lease=7)["lease"] == 0
        assert guest.order(visitor, "run")["lease"] == 0

    def test_a_lease_that_is_renewed_holds_and_run_says_so(self, guest: Guest) -> None:
        visitor = visit(NAME)
        guest.order(visitor, "open", log="shared")
        guest.order(visitor, "pause", lease=1, seconds=0.5)
        for _ in range(4):
            time.sleep(0.2)
            assert guest.order(visitor, "renew", lease=1, seconds=0.5)["lease"] == 1
        assert guest.order(visitor, "renew", lease=2, seconds=9)["lease"] == 1, (
            "another number renews nothing"
        )
        assert guest.order(visitor, "hold", lease=1)["state"] == "paused"
        time.sleep(0.7)
        state = guest.order(visitor, "run")
        assert (state["state"], state["lease"]) == ("running", 1)

    def test_a_stopped_coordinator_does_not_hold_the_guest(self, guest: Guest) -> None:
        pid = os.fork()
        if pid == 0:
            visitor = visit(NAME)
            guest.order(visitor, "open", log="shared")
            guest.order(visitor, "pause", lease=1, seconds=0.4)
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
        os.waitpid(pid, os.WUNTRACED)
        time.sleep(1.0)
        assert guest.order(guest.owner, "ask")["state"] == "running"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class TestVisitorsThatMeanHarm:
    def alive(self, guest: Guest) -> None:
        assert guest.order(guest.owner, "ask")["state"] == "running"

    @pytest.mark.parametrize(
        "data",
        [
            b"[" * 60_000,
            b'{"kind":' * 7000,
            b"{}",
            b"\0",
            b'{"kind": "open"}',
            b'{"kind": "throttle", "percent": "x"}',
            b'{"kind": "throttle", "percent": 1e999}',
            b'{"kind": "pause", "lease": {}}',
            b'{"kind": "ask", "since": [], "until": 0}',
        ],
    )
    def test_nonsense_ends_the_visit_and_no_more(self, guest: Guest, data: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(socket_address(NAME))
            sock.send(data)
            sock.settimeout(5)
            assert sock.recv(1 << 16) == b""
        self.alive(guest)

    def test_thousands_of_connections(self, guest: Guest) -> None:
        found, before = [], len(os.listdir(f"/proc/{guest.pid}/fd"))
        for _ in range(3000):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.setblocking(False)
            found.append(sock)
            if sock.connect_ex(socket_address(NAME)) not in (0, 11):
                break
        self.alive(guest)
        descriptors = os.listdir(f"/proc/{guest.pid}/fd")
        assert len(descriptors) <= before + MAX_CLIENTS
        for sock in found:
            sock.close()
        deadline = time.monotonic() + 5
        while True:
            try:
                visitor = visit(NAME)
                assert guest.order(visitor, "open", log="shared")["kind"] == "ready"
                break
            except (PeerGone, AssertionError):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        self.alive(guest)

    def test_descriptors_that_are_sent_are_not_kept(self, guest: Guest) -> None:
        before = len(os.listdir(f"/proc/{guest.pid}/fd"))
        for data in (b'{"kind": "ask"}', b"[" * 100, b'{"kind": "open", "log": "nothing"}'):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.connect(socket_address(NAME))
                for _ in range(20):
                    try:
                        socket.send_fds(sock, [data], [0, 1, 2])
                    except OSError:
                        break
        self.alive(guest)
        time.sleep(0.1)
        self.alive(guest)
        assert len(os.listdir(f"/proc/{guest.pid}/fd")) <= before
