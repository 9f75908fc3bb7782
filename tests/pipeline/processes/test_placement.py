"""CPUs and NUMA nodes, on recorded trees: a host of one node shows nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.processes.placement import (
    far_apart,
    node_of_interface,
    nodes_of,
    parse_cpus,
    show_cpus,
    stay_on,
)


@pytest.fixture
def two_sockets(tmp_path: Path) -> Path:
    """/sys of a host with two nodes, a third without CPUs (memory behind CXL), and a card on node 1."""
    for node, cpus in ((0, "0-3,8-11"), (1, "4-7,12-15"), (2, "")):
        folder = tmp_path / f"devices/system/node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(cpus + "\n")
    for name, node in (("eth0", 1), ("eth1", -1)):
        device = tmp_path / f"class/net/{name}/device"
        device.mkdir(parents=True)
        (device / "numa_node").write_text(f"{node}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "cpus", "shown"),
    [
        ("0", {0}, "0"),
        ("0-3,8", {0, 1, 2, 3, 8}, "0-3,8"),
        ("2,1,0", {0, 1, 2}, "0-2"),
        (" 5 , 7", {5, 7}, "5,7"),
    ],
)
def test_lists_of_cpus(text: str, cpus: set[int], shown: str) -> None:
    assert parse_cpus(text) == cpus
    assert show_cpus(frozenset(cpus)) == shown


@pytest.mark.parametrize("text", ["", ",", "a", "3-1", "-1", "1-", "0x1", "1;2", "0-99999999"])
def test_what_is_no_list(text: str) -> None:
    with pytest.raises(ValueError, match=r"taskset|empty"):
        parse_cpus(text)


def test_nodes(two_sockets: Path) -> None:
    assert nodes_of(frozenset({0, 9}), two_sockets) == [0]
    assert nodes_of(frozenset({3, 4}), two_sockets) == [0, 1]
    assert nodes_of(frozenset({99}), two_sockets) == []
    assert node_of_interface("eth0", two_sockets) == 1
    assert node_of_interface("eth1", two_sockets) is None
    assert node_of_interface("lo", two_sockets) is None


def test_what_lies_far_apart_is_said() -> None:
    assert far_apart([0], {"eth0": 1, "QAT 0000:6b:00.0": 0}) == "CPUs lie on node 0, eth0 on node 1"
    assert far_apart([0, 1], {"eth0": 1}) == ""
    assert far_apart([], {"eth0": 1}) == ""
    assert far_apart([0], {"eth0": None}) == ""


def test_a_process_stays_where_it_is_put() -> None:
    before = os.sched_getaffinity(0)
    one = frozenset({min(before)})
    try:
        stay_on(one)
        assert os.sched_getaffinity(0) == one
        stay_on(None)
        assert os.sched_getaffinity(0) == one
    finally:
        os.sched_setaffinity(0, before)
