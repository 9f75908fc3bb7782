"""A plan that is carried out by ends that only say how they ended: second tries, places, what is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.errors import Cancelled, NotConverged, RunFailed, UsageError
from tests.tools.evacuate.plans import HEAD, plan, vm
from tools.evacuate.ends import Ended
from tools.evacuate.execution import Execution
from tools.evacuate.plan_file import Host, Plan
from tools.evacuate.planner import make_plan
from tools.evacuate.state import State, only_one, read_state

TWO = HEAD + '[[host]]\nname = "c"\nlinks = []\ncpus = 8\nmemory = "64G"\naddress = "127.0.0.2"\n'
DONE, WILD, GONE = Ended(0, "{}", ""), Ended(3, "{}", "error: no end"), Ended(1, "", "error: no connection")


class Fake:
    """An end that has ended as it was told."""

    def __init__(self, ended: Ended | None) -> None:
        self._ended = ended
        self.stopped = False

    def ended(self) -> Ended | None:
        return Ended(130, "", "error: cancelled") if self.stopped and self._ended is None else self._ended

    def stop(self) -> None:
        self.stopped = True


class Hosts:
    """`how` says what becomes of a source by its command; what was started is kept."""

    def __init__(self, how: Callable[[Sequence[str]], Ended | None]) -> None:
        self._how = how
        self.started: list[tuple[str, list[str]]] = []
        self.ends: list[Fake] = []

    def start(self, host: Host, words: Sequence[str]) -> Fake:
        self.started.append((host.name, list(words)))
        self.ends.append(Fake(DONE if words[0] == "pipeline.recv" else self._how(words)))
        return self.ends[-1]

    def close(self) -> None:
        pass

    def senders(self, name: str) -> list[list[str]]:
        return [words for _, words in self.started if words[0] == "pipeline.send" and name in words]


def execution(asked: Plan, hosts: Hosts, tmp_path: Path) -> Execution:
    return Execution(make_plan(asked), hosts, State(tmp_path / "state", "x"), ["--insecure"], lambda _: None)


def guests(count: int, head: str = TWO) -> Plan:
    return plan(*(vm(f"x{at}", f"attach = 'x{at}'") for at in range(count)), head=head)


def test_every_vm_is_moved_once(tmp_path: Path) -> None:
    hosts = Hosts(lambda _: DONE)
    carried = execution(guests(5), hosts, tmp_path)
    carried.run()
    assert sorted(row.vm for row in carried.rows) == [f"x{at}" for at in range(5)]
    assert all(row.status == "moved" and row.attempts == 1 for row in carried.rows)
    assert all(len(hosts.senders(f"x{at}")) == 1 for at in range(5))


def test_who_does_not_converge_is_tried_again_last_and_throttled(tmp_path: Path) -> None:
    hosts = Hosts(lambda words: WILD if "x1" in words and "throttle" not in words else DONE)
    carried = execution(guests(4), hosts, tmp_path)
    carried.run()
    assert carried.rows[-1].vm == "x1"
    assert (carried.rows[-1].status, carried.rows[-1].attempts) == ("moved", 2)
    assert "throttle" in hosts.senders("x1")[1]


def test_who_never_converges_is_left_and_said(tmp_path: Path) -> None:
    carried = execution(guests(3), Hosts(lambda words: WILD if "x1" in words else DONE), tmp_path)
    with pytest.raises(NotConverged, match=r"1 VMs are left .* x1: not-converged, no end"):
        carried.run()
    assert sorted(row.vm for row in carried.rows if row.status == "moved") == ["x0", "x2"]


def test_a_destination_that_goes_away_is_not_used_again(tmp_path: Path) -> None:
    hosts = Hosts(lambda words: GONE if any("127.0.0.1:" in word for word in words) else DONE)
    carried = execution(guests(6), hosts, tmp_path)
    carried.run()
    assert {row.destination for row in carried.rows} == {"c"}
    assert all(row.status == "moved" for row in carried.rows)


def test_without_another_host_it_fails_and_names_the_vm(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="left where they were"):
        execution(guests(2, HEAD), Hosts(lambda _: GONE), tmp_path).run()


def test_ctrl_c_stops_both_ends_and_keeps_who_has_moved(tmp_path: Path) -> None:
    hosts = Hosts(lambda words: DONE if "x0" in words else None)
    carried = execution(guests(3), hosts, tmp_path)
    looks = iter(range(20))

    def look() -> None:
        if next(looks) == 10:
            raise Cancelled("cancelled by SIGINT")
        original()

    original = carried._look
    carried._look = look  # type: ignore[method-assign]
    with pytest.raises(Cancelled):
        carried.run()
    assert all(end.ended() is not None for end in hosts.ends)
    assert set(carried._state.moved) <= {"x0"}


def test_nothing_more_is_started_once_a_move_cannot_be_noted(tmp_path: Path) -> None:
    hosts = Hosts(lambda _: DONE)
    carried = execution(guests(6), hosts, tmp_path)
    carried._state.path = tmp_path / "nowhere" / "state"
    with pytest.raises(RunFailed, match=r"x\d has moved to \w, but that could not be noted"):
        carried.run()
    assert [row.status for row in carried.rows].count("moved") >= 1
    assert len(hosts.started) <= 2 * 4


def test_a_state_goes_on_where_it_stood(tmp_path: Path) -> None:
    file, path = tmp_path / "plan.toml", tmp_path / "state.json"
    file.write_text("x")
    asked = guests(3)
    state = read_state(path, file, asked)
    state.moved["x1"] = "c"
    state.save()
    again = read_state(path, file, asked).rest_of(asked)
    assert [one.name for one in again.vms] == ["x0", "x2"]
    assert [(one.name, where) for one, where in again.settled] == [("x1", "c")]
    file.write_text("y")
    with pytest.raises(UsageError, match="is of another plan"):
        read_state(path, file, asked)
    path.write_text("[]")
    with pytest.raises(UsageError, match="is no state"):
        read_state(path, file, asked)


def test_a_port_that_is_taken_is_passed_over(tmp_path: Path) -> None:
    taken = Ended(2, "", "error: --listen 127.0.0.1:7100: Address already in use")

    class Busy(Hosts):
        def start(self, host: Host, words: Sequence[str]) -> Fake:
            end = super().start(host, words)
            if words[0] == "pipeline.recv" and "127.0.0.1:7100" in words:
                end = self.ends[-1] = Fake(taken)
            return end

    hosts = Busy(lambda words: GONE if "127.0.0.1:7100" in words else DONE)
    carried = execution(guests(3, HEAD), hosts, tmp_path)
    carried.run()
    assert [row.status for row in carried.rows] == ["moved"] * 3
    assert sum("127.0.0.1:7100" in words for _, words in hosts.started) == 2  # both ends, once


def test_the_first_reason_stays_in_the_table(tmp_path: Path) -> None:
    carried = execution(guests(2, HEAD), Hosts(lambda _: GONE), tmp_path)
    with pytest.raises(RunFailed, match="failed, no connection"):
        carried.run()
    assert any(row.why.startswith("no connection") for row in carried.rows)


def test_a_plan_is_carried_out_by_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text("x")
    with only_one(path), pytest.raises(UsageError, match="another evacuation carries it out"), only_one(path):
        pass
    with only_one(path):
        pass
