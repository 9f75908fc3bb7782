"""The network's shares, the simulation beside the forecast, placement, and plans beside their baselines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as some

from pipeline.errors import UsageError
from pipeline.forecast.rounds import walk
from tests.support.harness import tool
from tests.tools.evacuate.plans import HEAD, plan, vm
from tools.evacuate.command import EXAMPLE
from tools.evacuate.network import Flow, Network
from tools.evacuate.plan_file import parse_plan
from tools.evacuate.planner import make_plan, question_of
from tools.evacuate.simulation import NO_LIMIT, Strategy, play
from tools.evacuate.work import Demand
from tools.fleet.generator import Shape, generate

ALL_AT_ONCE = Strategy("all", (0,), NO_LIMIT, NO_LIMIT, NO_LIMIT, NO_LIMIT)


@settings(max_examples=60, deadline=None)
@given(
    some.lists(
        some.tuples(some.floats(1, 100), some.integers(1, 4), some.sets(some.integers(0, 2), min_size=1)),
        min_size=1,
        max_size=8,
    )
)
def test_shares_are_max_min_fair(rows: list[tuple[float, int, set[int]]]) -> None:
    """Nobody has more than it asks for, no resource is over-full, and who has less than it asks for goes over
    a full resource on which nobody has more a weight."""
    clock = simpy.Environment()
    capacity = [50.0, 80.0, 120.0]
    network = Network(clock, capacity)
    flows = [Flow(weight) for _, weight, _ in rows]
    for flow, (most, _, over) in zip(flows, rows, strict=True):
        network.carry(flow, Demand(1e9, most, tuple((one, 1.0) for one in sorted(over))))
    clock.run(until=1e-6)
    used = [sum(f.rate for f, r in zip(flows, rows, strict=True) if at in r[2]) for at in range(3)]
    assert all(one <= most * (1 + 1e-6) for one, most in zip(used, capacity, strict=True))
    for flow, (most, weight, over) in zip(flows, rows, strict=True):
        assert 0 < flow.rate <= most * (1 + 1e-9)
        if flow.rate < most * (1 - 1e-6):
            level = flow.rate / weight
            assert any(
                used[at] >= capacity[at] * (1 - 1e-6)
                and all(
                    f.rate / f.weight <= level * (1 + 1e-6)
                    for f, r in zip(flows, rows, strict=True)
                    if at in r[2]
                )
                for at in over
            )


def test_many_that_end_at_once_leave_their_share_to_the_others() -> None:
    clock = simpy.Environment()
    network = Network(clock, [100.0])
    flows = [Flow(1) for _ in range(80)]
    for at, flow in enumerate(flows):
        flow_done = network.carry(flow, Demand(1.0 if at < 75 else 1e6, 100.0, ((0, 1.0),)))
        assert flow_done.callbacks is not None
        if at < 75:
            flow_done.callbacks.append(lambda _, flow=flow: network.leave(flow))  # type: ignore[misc]
    clock.run(until=10)
    assert [flow.rate for flow in flows[75:]] == pytest.approx([20.0] * 5)


def test_who_waits_for_a_crowd_gets_what_one_of_it_leaves_elsewhere() -> None:
    clock = simpy.Environment()
    network = Network(clock, [100.0, 30.0])
    crowd = [Flow(1) for _ in range(80)]
    for flow in crowd:
        network.carry(flow, Demand(1e6, 100.0, ((0, 1.0),)))
    crossing, other = Flow(20), Flow(20)
    network.carry(crossing, Demand(1e6, 100.0, ((0, 1.0), (1, 1.0))))
    network.carry(other, Demand(1e6, 25.0, ((1, 1.0),)))
    clock.run(until=1)
    assert other.rate < 25
    network.leave(crossing)
    clock.run(until=2)
    assert other.rate == pytest.approx(25.0)


@settings(max_examples=30, deadline=None)
@given(some.integers(0, 1 << 40), some.integers(1, 80), some.integers(2, 20), some.integers(1, 6))
def test_every_plan_of_the_generator_can_be_placed(seed: int, vms: int, hosts: int, uplinks: int) -> None:
    question = question_of(parse_plan(generate(seed, Shape(vms, hosts, min(uplinks, hosts)))))
    assert len(question.jobs) == vms


def test_many_flows_that_are_worked_out_now_and_then_take_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    question = question_of(parse_plan(generate(1, Shape(400, 40, 4))))
    together = replace(ALL_AT_ONCE, order=tuple(range(400)))
    late = play(question, together)
    monkeypatch.setattr("tools.evacuate.network.MANY", 1 << 30)
    exact = play(question, together)
    assert late.total_seconds == pytest.approx(exact.total_seconds, rel=0.01)
    assert late.sum_seconds == pytest.approx(exact.sum_seconds, rel=0.01)
    assert late.total_seconds != exact.total_seconds


@pytest.mark.parametrize("how", ["preset = 'database'", "dirty_rate = '200M'", "zero_share = 1", ""])
def test_a_vm_alone_takes_what_the_forecast_says(how: str) -> None:
    question = question_of(plan(vm("x", how)))
    job = question.jobs[0]
    alone = walk(job.case)
    move = play(question, ALL_AT_ONCE).moves[0]
    assert move.seconds == pytest.approx(alone.total_ms / 1e3, rel=0.02, abs=0.02)
    assert move.wire_bytes == pytest.approx(alone.wire_bytes, rel=0.02, abs=1e6)
    assert move.moved == alone.converged


def test_two_that_share_a_link_send_more_than_one_after_the_other() -> None:
    busy = "dirty_rate = '300M'\nworking_set = '2G'"
    question = question_of(plan(vm("x", busy), vm("y", busy)))
    both = Strategy("both", (0, 1), NO_LIMIT, 9, 9, 9)
    turns = Strategy("turns", (0, 1), NO_LIMIT, 9, 9, 1)
    assert sum(one.wire_bytes for one in play(question, both).moves) > 1.01 * sum(
        one.wire_bytes for one in play(question, turns).moves
    )


def test_vms_apart_never_share_a_host_and_memory_is_kept() -> None:
    three = HEAD + '[[host]]\nname = "c"\nlinks = []\ncpus = 8\nmemory = "9G"\n'
    planned = make_plan(plan(*(vm(f"x{at}", 'apart = "web"') for at in range(2)), vm("y"), head=three))
    where = {job.vm.name: job.destination.name for job in planned.question.jobs}
    assert {where["x0"], where["x1"]} == {"b", "c"}
    with pytest.raises(UsageError, match="no host has"):
        make_plan(plan(*(vm(f"x{at}", 'apart = "web"') for at in range(3)), head=three))
    with pytest.raises(UsageError, match="no host has"):
        make_plan(plan(vm("x", size="100G"), head=three))


def test_higher_priority_starts_first() -> None:
    planned = make_plan(plan(*(vm(f"x{at}", f"priority = {at}") for at in range(4))))
    starts = {planned.question.jobs[one.job].vm.name: one.start_seconds for one in planned.chosen.moves}
    assert starts["x3"] == 0
    assert starts["x3"] <= starts["x2"] <= starts["x1"] <= starts["x0"]


@pytest.mark.parametrize("uplinks", [1, 4])
@pytest.mark.parametrize("seed", [101, 102])
def test_plans_of_the_generator_beat_their_baselines_and_not_the_bound(seed: int, uplinks: int) -> None:
    planned = make_plan(parse_plan(generate(seed, Shape(24, 12, uplinks))))
    assert planned.chosen.left == 0
    assert planned.chosen.total_seconds >= planned.bound.seconds * (1 - 1e-6)
    for one in planned.baselines.values():
        assert planned.chosen.total_seconds <= one.total_seconds * (1 + 1e-9)
        assert len(one.moves) == 24


def test_a_vm_that_does_not_converge_is_said_and_throttling_moves_it() -> None:
    wild = vm("wild", "dirty_rate = '20G'")
    assert make_plan(plan(wild, vm("calm"))).chosen.left == 0  # the second try is throttled
    throttled = "[limits]\nconverge = 'throttle'\n" + HEAD
    assert make_plan(plan(wild, head=throttled)).chosen.left == 0


def test_the_generator_makes_the_same_plan_for_a_seed() -> None:
    shape = Shape(10, 6, 2)
    assert generate(7, shape) == generate(7, shape) != generate(8, shape)


def test_the_command_writes_json_and_one_page(tmp_path: Path) -> None:
    page, target = tmp_path / "plan.html", tmp_path / "plan.json"
    ended = tool("tools.evacuate", str(EXAMPLE), "--html", str(page), "--json", str(target), "--draws", "9")
    assert ended.returncode == 0, ended.stderr
    document = json.loads(target.read_text())
    assert 0 <= document["chance_to_keep_deadline"] <= 1
    assert {one["vm"] for one in document["migrations"]} == {"web1", "web2", "db", "build"}
    for one in document["migrations"]:
        assert one["start_seconds"] < one["end_seconds"] <= document["total_seconds"] * (1 + 1e-5)
        assert {"from", "to", "method", "channels"} <= set(one)
    assert "<svg" in page.read_text()
    assert "http" not in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "name one PLAN.toml"),
        (("nowhere.toml",), "No such file"),
        ((str(EXAMPLE), "--vms", "3"), "--vms: belongs to --generate"),
        ((str(EXAMPLE), "--state", "x"), "--state: belongs to --execute"),
        ((str(EXAMPLE), "--cluster", "local:0"), "--cluster local:0: must be local:N"),
        ((str(EXAMPLE), "--draws", "-1"), "--draws -1: must be 0 to"),
        (("--example", "--json", "-"), "--json: is for a plan"),
        (("--generate", "1", "--hosts", "1"), "--hosts 1: must be 2 to"),
        (("--generate", "x"), "--generate x: not a whole number"),
        ((str(EXAMPLE), "--execute", "--draws", "0"), "how both ends trust each other"),
        (
            (str(EXAMPLE), "--execute", "--draws", "0", "--insecure"),
            "has a worker, so --execute needs --cluster",
        ),
    ],
)
def test_what_cannot_be_is_said_in_a_line(arguments: tuple[str, ...], why: str) -> None:
    ended = tool("tools.evacuate", *arguments)
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    assert ended.returncode == 2
    assert len(errors) == 1
    assert why in errors[0]


def test_no_output_takes_the_place_of_the_plan_or_of_another(tmp_path: Path) -> None:
    plan, other = tmp_path / "plan.toml", tmp_path / "other"
    plan.write_bytes(EXAMPLE.read_bytes())
    for options, why in (
        (("--json", str(plan)), "is the plan too"),
        (("--html", str(plan)), "is the plan too"),
        (("--json", str(other), "--html", f"{tmp_path}/./other"), "is --json too"),
    ):
        ended = tool("tools.evacuate", str(plan), *options)
        assert ended.returncode == 2
        assert why in ended.stderr
        assert plan.read_bytes() == EXAMPLE.read_bytes()
