"""PLAN.toml: what is taken, and that everything else is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from tests.tools.evacuate.plans import HEAD, plan, vm
from tools.evacuate.command import EXAMPLE
from tools.evacuate.plan_file import read_plan


def test_the_example_is_a_plan_and_has_every_key() -> None:
    found = read_plan(EXAMPLE)
    assert found.limits.deadline_seconds == 150
    assert [one.name for one in found.vms] == ["web1", "web2", "db", "build"]
    assert found.vms[2].relayed is not None
    assert found.hosts["a1"].qat_devices == 4


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("colour = 3", "vm x: 'colour' is not known; known are"),
        ("ratio = 'high'", "ratio must be a number"),
        ("ratio = nan", "ratio nan must be"),
        ("ratio = inf", "ratio inf must be"),
        ("ratio = 0.5", "ratio 0.5 must be 1 to"),
        ("ratio = true", "ratio must be a number"),
        ("zero_share = 2", "zero_share 2 must be 0 to 1"),
        ("priority = 1.5", "priority must be a whole number"),
        ("preset = 'sleepy'", "preset 'sleepy' must be one of"),
        ("dirty_rate = 5", "dirty_rate must be a printable text"),
        ("dirty_rate = '1Gb'", "bits or bytes"),
        ("working_set = '1G'", "working_set belongs to dirty_rate"),
        ("dirty_curve = []", "dirty_curve must have 1 to"),
        ("dirty_curve = [[1, '2M'], [1, '3M']]", "dirty_curve must rise"),
        ("dirty_curve = [[1]]", "dirty_curve must be a list of"),
        ("dirty_rate = '1M'\npreset = 'build'", "give one of them"),
        ("sample = 'nowhere.raw'", "no such file"),
        ("qmp = '/x'", "qmp needs socket, incoming and incoming_qmp"),
        ("apart = ''", "apart must be a printable text"),
    ],
)
def test_what_a_vm_cannot_have_is_said(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"^.+$") as error:
        plan(vm("x", line))
    assert why in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (HEAD.replace('links = ["up"]', 'links = ["down"]'), "there is no link down"),
        (HEAD.replace("empty = true", ""), "memory is missing"),
        (HEAD.replace("cpus = 8", "cpus = 0"), "cpus 0 must be"),
        (HEAD.replace('rate = "10Gbit"', 'rate = "0"'), "rate '0' must be"),
        (HEAD.replace('name = "b"', 'name = "a"'), "host a is there twice"),
        (HEAD.replace("links = []", "links = []\nempty = true"), "no host can take a VM"),
        (HEAD.replace("links = []", "links = []\nqat = 2"), "qat needs a profile"),
        (HEAD.replace("links = []", "links = []\nports = [9, 2]"), "ports must be"),
        ("[limits]\ndowntime = 0\n" + HEAD, "[limits]: downtime 0 must be"),
        (f"[limits]\ndowntime = {'9' * 400}\n" + HEAD, "downtime so large a number must be"),
        ("[limits]\ndowntime = nan\n" + HEAD, "downtime nan must be"),
        ("[limits]\nstreams_a_host = 0\n" + HEAD, "streams_a_host 0 must be"),
        ("limits = 3\n" + HEAD, "[limits]: must be a table"),
        ("", "link is missing: write [[link]]"),
    ],
)
def test_what_hosts_and_links_cannot_have_is_said(head: str, why: str) -> None:
    with pytest.raises((ValueError, UsageError)) as error:
        plan(vm("x"), head=head)
    assert why in str(error.value)


def test_a_vm_of_a_host_that_stays_is_refused() -> None:
    with pytest.raises(ValueError, match="is not to be emptied"):
        plan(vm("x", host="b"))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[[vm", b"x = 1", b"x = " + b"9" * 5000])
def test_a_file_that_is_no_plan_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        read_plan(path)
    assert str(error.value).startswith(f"plan {path}: ")
    with pytest.raises(UsageError, match="No such file"):
        read_plan(tmp_path / "none.toml")
