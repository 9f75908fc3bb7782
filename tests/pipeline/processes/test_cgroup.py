"""Limits of control groups, on recorded trees of both versions, and in a real group."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.processes.cgroup import cpu_quota, memory_left_bytes, pids_left, usable_cpus
from tests.support.harness import ROOT

MIB = 1 << 20


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{value}\n")


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    """A unit with MemoryMax=512M and CPUQuota=150% within a slice with less memory."""
    write(tmp_path / "proc/self")
    (tmp_path / "proc/self/cgroup").write_text("0::/ferry.slice/run.service\n")
    mount = tmp_path / "sys/fs/cgroup"
    write(
        mount / "ferry.slice", memory_max=400 * MIB, memory_current=300 * MIB, pids_max="max", pids_current=4
    )
    (mount / "ferry.slice/memory.stat").write_text(f"inactive_file {80 * MIB}\nshmem {90 * MIB}\nanon 1\n")
    unit = mount / "ferry.slice/run.service"
    write(
        unit,
        memory_max=512 * MIB,
        memory_current=200 * MIB,
        cpu_max="150000 100000",
        pids_max=50,
        pids_current=8,
    )
    (unit / "memory.stat").write_text(f"active_file {10 * MIB}\nslab_reclaimable {MIB}\n")
    return tmp_path


def test_the_tightest_limit_on_the_way_up_holds_and_cache_is_free(v2: Path) -> None:
    assert memory_left_bytes(v2) == (400 - 300 + 80) * MIB
    assert cpu_quota(v2) == 1.5
    assert usable_cpus(v2) == min(1.5, len(os.sched_getaffinity(0)))
    assert pids_left(v2) == 42


def test_no_limit_is_none(tmp_path: Path) -> None:
    assert memory_left_bytes(tmp_path) is None
    write(tmp_path / "proc/self")
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    write(tmp_path / "sys/fs/cgroup", memory_max="max", memory_current=5, cpu_max="max 100000")
    assert memory_left_bytes(tmp_path) is None
    assert cpu_quota(tmp_path) is None


def test_version_1_and_a_container_that_sees_only_its_own_group(tmp_path: Path) -> None:
    write(tmp_path / "proc/self")
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n")
    memory, cpu = tmp_path / "sys/fs/cgroup/memory", tmp_path / "sys/fs/cgroup/cpu,cpuacct"
    write(memory)
    write(cpu)
    (memory / "memory.limit_in_bytes").write_text(f"{300 * MIB}\n")
    (memory / "memory.usage_in_bytes").write_text(f"{100 * MIB}\n")
    (memory / "memory.stat").write_text(f"total_inactive_file {50 * MIB}\ncache 1\n")
    (cpu / "cpu.cfs_quota_us").write_text("-1\n")
    (cpu / "cpu.cfs_period_us").write_text("100000\n")
    assert memory_left_bytes(tmp_path) == 250 * MIB
    assert cpu_quota(tmp_path) is None
    (cpu / "cpu.cfs_quota_us").write_text("50000\n")
    assert cpu_quota(tmp_path) == 0.5
    (memory / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory_left_bytes(tmp_path) is None


@pytest.fixture
def group() -> Iterator[Path]:
    """A real group of 256 MiB."""
    mount = Path("/sys/fs/cgroup/memory")
    limit = "memory.limit_in_bytes"
    if not mount.is_dir():
        mount, limit = Path("/sys/fs/cgroup"), "memory.max"
    folder = mount / f"ramferry-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / limit).write_text(str(256 * MIB))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield folder
    folder.rmdir()


def test_a_limit_of_the_processs_own_group_is_seen_before_anything_is_allocated(group: Path) -> None:
    program = (
        "import os, sys; open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid())); "
        "from pipeline.cli.main import execute; "
        "sys.exit(execute('pipeline.cli.run', ['--size', '256M', '--quiet']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(group)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert "not enough memory" in ended.stderr and "control group" in ended.stderr
    assert ended.stderr.count("\n") == 1
