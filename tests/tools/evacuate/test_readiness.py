"""What is refused before the first migration is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from guestmem.guest import NoSuchGuest
from pipeline.errors import UsageError
from tests.tools.evacuate.plans import HEAD, plan, vm
from tools.evacuate.readiness import check_ready
from tools.evacuate.trust import Trust

OPEN = Trust(insecure=True)
SOCKETS = "qmp = '/no/q'\nsocket = '/no/s'\nincoming = '/no/i'\nincoming_qmp = '/no/iq'"


class Visit:
    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def guests_that_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def visit(name: str) -> Visit:
        if name == "nobody":
            raise NoSuchGuest(f"no guest named {name} answers")
        return Visit()

    monkeypatch.setattr("tools.evacuate.readiness.visit", visit)


MOVABLE = vm("x", "attach = 'x'")


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "[::1]"])
def test_what_can_be_carried_out_is_let_through(address: str) -> None:
    check_ready(plan(MOVABLE, head=HEAD.replace("127.0.0.1", address)), OPEN, has_cluster=False)


@pytest.mark.parametrize(
    ("head", "machines", "said"),
    [
        (HEAD, vm("x"), "vm x: names neither attach nor qmp"),
        (HEAD, vm("x", "attach = 'nobody'"), "vm x: no guest named nobody answers"),
        (HEAD, vm("x", SOCKETS), "vm x: qmp /no/q: no such socket; start that QEMU first"),
        (HEAD.replace('address = "127.0.0.1"', ""), MOVABLE, "host b: address is missing"),
        (HEAD + 'worker = "b1"\n', MOVABLE, "host b: has a worker, so --execute needs --cluster"),
        (HEAD + 'netns = "no-such"\n', MOVABLE, "host b: netns no-such: no such namespace here"),
        (HEAD.replace("127.0.0.1", "192.0.2.7"), MOVABLE, "192.0.2.7 is none of this machine's"),
        (HEAD.replace("127.0.0.1", "host.invalid"), MOVABLE, "host b: address host.invalid: "),
        (HEAD.replace("127.0.0.1", "a..b"), MOVABLE, "host b: address a..b: "),
        (HEAD.replace("127.0.0.1", "fd00::2"), MOVABLE, "an IPv6 address stands in brackets"),
    ],
)
def test_what_a_plan_lacks_is_said(head: str, machines: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_ready(plan(machines, head=head), OPEN, has_cluster=False)


@pytest.mark.parametrize("trust", [Trust(tls_dir="/no/such"), Trust(secret="/no/such")])
def test_certificates_and_secrets_are_read_where_an_end_is_here(trust: Trust) -> None:
    with pytest.raises(UsageError, match="/no/such"):
        check_ready(plan(MOVABLE), trust, has_cluster=False)


def test_a_host_that_is_empty_by_now_is_not_looked_at() -> None:
    gone = '[[host]]\nname = "c"\nlinks = []\ncpus = 8\nempty = true\nnetns = "no-such"\n'
    check_ready(plan(MOVABLE, head=HEAD + gone), OPEN, has_cluster=False)


def test_what_is_at_workers_is_not_looked_at(tmp_path: Path) -> None:
    head = HEAD.replace("127.0.0.1", "192.0.2.7").replace("empty = true", 'empty = true\nworker = "a1"')
    asked = plan(MOVABLE, head=head + 'worker = "b1"\n')
    check_ready(asked, Trust(tls_dir=str(tmp_path / "there")), has_cluster=True)
