"""NUMA nodes: what this host has, and recorded maps of one that has more."""

from __future__ import annotations

from pathlib import Path

import pytest

from guestmem.numa import nodes_here, nodes_of, prefer_node
from guestmem.prefault import populate
from guestmem.ram import GuestRam

MIB = 1 << 20


def test_nodes_of_a_host(tmp_path: Path) -> None:
    for name in ("node0", "node10", "node2", "nodes", "power"):
        (tmp_path / name).mkdir()
    assert nodes_here(tmp_path) == [0, 2, 10]
    assert nodes_here(tmp_path / "nowhere") == []


def test_where_memory_lies(tmp_path: Path) -> None:
    ram = GuestRam.create(2 * MIB, "test")
    maps = tmp_path / "numa_maps"
    here = f"{ram.mapping.address:x}"
    maps.write_text(
        "7f0000000000 default file=/x mapped=2 N0=2 kernelpagesize_kB=4\n"
        f"{here} prefer:1 file=/dev/shm/x\\040(deleted) dirty=512 N0=12 N1=500 kernelpagesize_kB=4\n"
    )
    assert nodes_of(ram.mapping, maps) == {0: 12 * 4096, 1: 500 * 4096}
    maps.write_text(f"{here} default file=/dev/shm/x\n")
    assert nodes_of(ram.mapping, maps) == {}
    assert nodes_of(ram.mapping, tmp_path / "nowhere") == {}


def test_memory_of_a_node_that_is_preferred() -> None:
    here = nodes_here()
    if not here:
        pytest.skip("this kernel knows no NUMA nodes")
    prefer_node(here[0])
    try:
        ram = GuestRam.create(2 * MIB, "test")
        populate(ram.mapping, write=True)
        assert nodes_of(ram.mapping) == {here[0]: 2 * MIB}
    finally:
        prefer_node(None)


def test_a_node_that_is_not_there() -> None:
    with pytest.raises(OSError, match=r"Invalid argument|not known|not implemented"):
        prefer_node(1000)
