"""Campaigns: a comparison on a Dask cluster, of our own and started by hand, with workers that die."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from tests.support.dask_fleet import HandFleet, hand_fleet
from tests.support.harness import Run, assert_clean, leftovers, session_pids, tool, until
from tools.cluster.connect import read_cluster
from tools.compare import hosts, page, report
from tools.compare.cluster import machine
from tools.compare.cluster.runner import failure
from tools.compare.comparison import Place, places
from tools.compare.points_table import COLUMNS, csv_text, has_parquet, write_parquet
from tools.compare.scenario import Point, Scenario, load

pytest.importorskip("distributed")

SMALL = """
title = "small"
size = "4M"
repetitions = 2
methods = ["none", "zstd"]
bandwidths = ["100M", "0"]
channels = [1]
"""

TWO_HUNDRED = """
title = "200 points"
size = "4M"
repetitions = 5
methods = ["none", "zstd", "lz4", "isal", "zlib"]
bandwidths = ["100M", "0"]
channels = [1, 2]
prealloc = [true, false]
"""

SECONDS = 120.0


def write(folder: Path, text: str) -> str:
    path = folder / "scenario.toml"
    path.write_text(text)
    return str(path)


def statuses(output: Path) -> list[str]:
    return [json.loads(path.read_text())["status"] for path in (output / "points").glob("*.json")]


def kept(said: str) -> list[str]:
    """The names of points in the order in which they were finished."""
    return [line.split()[1] for line in said.splitlines() if line.startswith("[")]


def nothing_is_left() -> None:
    assert list(machine.private_folder().glob("campaign-*")) == []


def campaign(*arguments: str) -> Run:
    return Run(*arguments, module="tools.compare")


# ---------------------------------------------------------------- workers of our own


def test_on_workers_of_our_own_and_resumed(tmp_path: Path) -> None:
    scenario, output = write(tmp_path, SMALL), tmp_path / "out"
    options = (scenario, "--output", str(output), "--cluster", "local:2")
    before = leftovers()
    running = campaign(*options, "--filter", "zstd*")
    ended = running.end(SECONDS)
    assert ended.code == 0, ended.err
    assert_clean(running.session, before)
    assert len(statuses(output)) == 4
    again = campaign(*options)
    ended = again.end(SECONDS)
    assert ended.code == 0, ended.err
    assert "4 of 8 points are there already" in ended.err
    assert_clean(again.session, before)
    nothing_is_left()
    rows = list(csv.DictReader((output / "points.csv").open()))
    assert [row["host"] for row in rows] == ["local"] * 8
    assert {row["status"] for row in rows} == {"completed"}
    here = tool("tools.compare", scenario, "--output", str(output))
    assert here.returncode == 2
    assert "fleet" in here.stderr


def test_the_table_can_be_queried(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    output = tmp_path / "out"
    ended = tool("tools.compare", write(tmp_path, SMALL), "--output", str(output), "--filter", "none*")
    assert ended.returncode == 0, ended.stderr
    table = parquet.read_table(output / "points.parquet")
    rows = list(csv.DictReader((output / "points.csv").open()))
    assert table.column_names == list(rows[0]) == [column.name for column in COLUMNS]
    assert table.num_rows == len(rows) == 4
    assert table["time_total_ms"].to_pylist() == [float(row["time_total_ms"]) for row in rows]
    assert table["prealloc"].to_pylist() == [True] * 4
    assert table["level"].null_count == 4


def test_without_pyarrow_a_line_says_so(tmp_path: Path) -> None:
    hidden = tmp_path / "pyarrow"
    hidden.mkdir()
    (hidden / "__init__.py").write_text("raise ImportError('hidden')")
    output = tmp_path / "out"
    options = (write(tmp_path, SMALL), "--output", str(output), "--filter", "none*b0*_r1")
    environment = {"PYTHONPATH": str(tmp_path)}
    ended = tool("tools.compare", *options, environment=environment)
    assert ended.returncode == 0, ended.stderr
    assert "pip install 'ramferry[fleet]'" in ended.stderr
    assert not (output / "points.parquet").exists()


@pytest.mark.long
def test_200_points_and_a_worker_is_killed(tmp_path: Path) -> None:
    output = tmp_path / "out"
    running = campaign(write(tmp_path, TWO_HUNDRED), "--output", str(output), "--cluster", "local:4")
    running.wait_for("[20/200]")
    until(lambda: worker_at_work(running.session))
    os.kill(worker_at_work(running.session), signal.SIGKILL)
    ended = running.end(900.0)
    assert ended.code == 0, ended.err
    assert "died; it is tried again" in ended.err
    assert statuses(output) == ["completed"] * 200
    assert len(kept(ended.err)) == len(set(kept(ended.err))) == 200
    assert len(list(csv.DictReader((output / "points.csv").open()))) == 200
    assert_clean(running.session, set())
    nothing_is_left()


def worker_at_work(session: int) -> int:
    """The pid of a Dask worker that has a migration running; 0 is none."""
    for pid in session_pids(session):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if b"pipeline.run" in command and b"spawn_main" in Path(f"/proc/{parent}/cmdline").read_bytes():
                return parent
        except OSError:
            continue
    return 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_what_was_measured_is_kept(tmp_path: Path, number: int) -> None:
    output = tmp_path / "out"
    before = leftovers()
    slow = ("--bandwidths", "1M,2M")  # points of a second or two, so that some are left when the signal comes
    running = campaign(write(tmp_path, SMALL), "--output", str(output), "--cluster", "local:2", *slow)
    running.wait_for("[2/8]")
    os.killpg(running.session, number)
    ended = running.end(SECONDS)
    assert ended.code == 130
    assert ended.errors[-1].endswith("the same command goes on from here")
    assert "Traceback" not in ended.err
    assert_clean(running.session, before)
    assert 2 <= len(list(csv.DictReader((output / "points.csv").open()))) < 8
    nothing_is_left()


def test_pairs_of_workers_of_our_own(tmp_path: Path) -> None:
    output = tmp_path / "out"
    options = ("--repetitions", "1", "--bandwidths", "0", "--cluster", "local:2")
    running = campaign(write(tmp_path, 'pairs = "all"' + SMALL), "--output", str(output), *options)
    ended = running.end(SECONDS)
    assert ended.code == 0, ended.err
    assert_clean(running.session, set())
    rows = list(csv.DictReader((output / "points.csv").open()))
    assert {(row["host"], row["to_host"]) for row in rows} == {("local-1", "local-2"), ("local-2", "local-1")}
    assert {row["status"] for row in rows} == {"completed"}
    text = (output / "report.md").read_text()
    assert hosts.LINKS in text
    assert hosts.WHICH_HOST in text
    page = (output / "report.html").read_text()
    assert hosts.LINKS in page
    document = json.loads((output / "compare.json").read_text())
    assert document["points"][0]["result"]["options"]["tls_dir"]
    nothing_is_left()


def test_a_pair_that_does_not_converge_is_a_row(tmp_path: Path) -> None:
    output = tmp_path / "out"
    text = 'title = "t"\nsize = "8M"\nmethods = ["none"]\nbandwidths = ["8M"]\ndirty_rates = ["64M"]\n'
    text += 'pairs = [["local-1", "local-2"]]\nrepetitions = 1'
    running = campaign(write(tmp_path, text), "--output", str(output), "--cluster", "local:2")
    ended = running.end(SECONDS)
    assert ended.code == 0, ended.err
    assert "tried again" not in ended.err
    assert statuses(output) == ["not-converged"]
    assert_clean(running.session, set())


# ---------------------------------------------------------------- started by hand


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[HandFleet]:
    folder = tmp_path / "fleet"
    folder.mkdir()
    with hand_fleet(folder) as found:
        yield found


def test_workers_started_by_hand(fleet: HandFleet, tmp_path: Path) -> None:
    for name in ("host=xeon-qat", "host=xeon-qat/2", "host=epyc"):
        fleet.add(name)
    fleet.add("stranger", "--nthreads", "1")
    output = tmp_path / "out"
    options = ("--output", str(output), "--cluster", fleet.address, "--hosts", "xeon-qat,epyc")
    running = campaign(write(tmp_path, SMALL), *options)
    running.wait_for("[3/16]")
    fleet.kill("host=epyc")
    ended = running.end(SECONDS)
    assert ended.code == 0, ended.err
    assert "resource ramferry=1" in ended.err
    assert len(kept(ended.err)) == len(set(kept(ended.err))) == 16
    rows = list(csv.DictReader((output / "points.csv").open()))
    assert len(rows) == 16
    assert {row["status"] for row in rows if row["host"] == "xeon-qat"} == {"completed"}
    failed = [row for row in rows if row["status"] == "failed"]
    assert failed
    assert {row["error"] for row in failed} == {"no worker of the host epyc is there"}
    assert "What failed" in (output / "report.md").read_text()
    fleet.add("host=epyc")
    ended = campaign(write(tmp_path, SMALL), *options).end(SECONDS)
    assert ended.code == 0, ended.err
    assert f"{16 - len(failed)} of 16 points are there already" in ended.err
    assert statuses(output) == ["completed"] * 16


def test_a_client_that_is_killed_leaves_nothing_running(fleet: HandFleet, tmp_path: Path) -> None:
    fleet.add("host=a")
    slow = SMALL.replace('"100M"', '"256K"')
    options = ("--output", str(tmp_path / "out"), "--cluster", fleet.address, "--filter", "none*b256K*")
    running = campaign(write(tmp_path, slow), *options)
    until(fleet.commands, 60.0)
    os.killpg(running.session, signal.SIGKILL)
    running.process.communicate()
    until(lambda: not fleet.commands())


def test_ctrl_c_ends_what_runs_on_the_hosts(fleet: HandFleet, tmp_path: Path) -> None:
    fleet.add("host=a")
    slow = SMALL.replace('"100M"', '"256K"')
    options = ("--output", str(tmp_path / "out"), "--cluster", fleet.address, "--filter", "none*b256K*")
    running = campaign(write(tmp_path, slow), *options)
    until(fleet.commands, 60.0)
    os.killpg(running.session, signal.SIGINT)
    assert running.end(SECONDS).code == 130
    assert fleet.commands() == []
    nothing_is_left()


def test_a_pair_whose_receiver_dies(fleet: HandFleet, tmp_path: Path) -> None:
    for name in ("host=a", "host=b", "host=b/2"):
        fleet.add(name)
    output = tmp_path / "out"
    slow = 'pairs = [["a", "b"]]' + SMALL.replace('"100M"', '"2M"')
    options = ("--output", str(output), "--cluster", fleet.address, "--filter", "none*b2M*")
    running = campaign(write(tmp_path, slow), *options)
    until(lambda: len(fleet.commands()) == 2, 60.0)
    for name in ("host=b", "host=b/2"):
        if any(pid in fleet.commands() for pid in session_pids(fleet.workers[name].pid)):
            fleet.kill(name)
            break
    ended = running.end(SECONDS)
    assert ended.code == 0, ended.err
    assert "it is tried again" in ended.err
    assert statuses(output) == ["completed"] * 2
    assert fleet.commands() == []


@pytest.mark.long
def test_a_scheduler_that_dies_ends_it(fleet: HandFleet, tmp_path: Path) -> None:
    fleet.add("host=a")
    output = tmp_path / "out"
    running = campaign(write(tmp_path, SMALL), "--output", str(output), "--cluster", fleet.address)
    running.wait_for("[2/8]")
    os.killpg(fleet.scheduler.pid, signal.SIGKILL)
    ended = running.end(SECONDS)
    assert ended.code == 1
    assert len(ended.errors) == 1
    assert "scheduler" in ended.errors[0]
    assert len(statuses(output)) >= 2
    until(lambda: not fleet.commands())


def test_tls(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    key, certificate = folder / "client-key.pem", folder / "client-cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
    make += ["-days", "365", "-subj", "/CN=fleet", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    (folder / "ca-cert.pem").write_bytes(certificate.read_bytes())
    options = ("--tls-ca-file", str(certificate), "--tls-cert", str(certificate), "--tls-key", str(key))
    with hand_fleet(tmp_path, *options, scheme="tls") as fleet:
        fleet.add("host=a")
        where = ("--output", str(tmp_path / "out"), "--cluster", fleet.address, "--cluster-tls", str(folder))
        ended = campaign(write(tmp_path, SMALL), *where, "--filter", "none*b0*_r1").end(SECONDS)
        assert ended.code == 0, ended.err
        assert statuses(tmp_path / "out") == ["completed"]


# ---------------------------------------------------------------- what is refused, and what is judged


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cluster", "local:0"), "local:1 to local:64"),
        (("--cluster", "local:many"), "local:1 to local:64"),
        (("--cluster", "10.0.0.1:8786"), "tcp://HOST:PORT"),
        (("--cluster", "tcp://10.0.0.1:99999"), "tcp://HOST:PORT"),
        (("--cluster", "tls://10.0.0.1:8786"), "go together"),
        (("--cluster", "tls://10.0.0.1:8786", "--cluster-tls", "nowhere"), "ca-cert.pem cannot be read"),
        (("--cluster-tls", "nowhere"), "is for --cluster"),
        (("--hosts", "a"), "is for --cluster"),
        (("--cluster", "local:1", "--hosts", "a b"), "letters"),
        (("--cluster", "local:1", "--hosts", "a,a"), "twice"),
    ],
)
def test_a_command_line_that_is_wrong_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    ended = tool("tools.compare", write(tmp_path, SMALL), "--output", str(tmp_path / "out"), *arguments)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert words in ended.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('pairs = "some"', "must be"),
        ("pairs = []", "must be"),
        ("pairs = 3", "must be"),
        ('pairs = ["a", "b"]', "two hosts"),
        ('pairs = [["a"]]', "two hosts"),
        ('pairs = [["a", "a"]]', "two hosts"),
        ('pairs = [["a", 3]]', "two hosts"),
        ('pairs = [["a", ["b"]]]', "two hosts"),
        ('pairs = [["a", "b", "a"]]', "two hosts"),
        ("hosts = [3]", "letters"),
        ('pairs = [["a", "../b"]]', "letters"),
        ('hosts = "a"', "must be a list"),
        ('hosts = ["a/b"]', "letters"),
        ('hosts = ["a"]\npairs = [["a", "b"]]', "leave it out"),
    ],
)
def test_hosts_that_are_wrong_are_refused(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load(write(tmp_path, line + SMALL))


def test_no_scheduler_is_one_line(tmp_path: Path) -> None:
    options = ("--output", str(tmp_path / "out"), "--cluster", "tcp://127.0.0.1:1")
    ended = campaign(write(tmp_path, SMALL), *options).end(SECONDS)
    assert ended.code == 1
    assert len(ended.errors) == 1
    assert "Traceback" not in ended.err


def test_addresses_are_read() -> None:
    assert read_cluster("local:4", None).workers == 4
    assert read_cluster("tcp://[::1]:8786", None).address == "tcp://[::1]:8786"


def test_points_between_pairs() -> None:
    scenario = Scenario(title="t", size="4M", methods=("none",), repetitions=1, pairs="all")
    ends = [(point.host, point.to_host) for point in scenario.points_on(["a", "b", "c"])]
    assert len(ends) == len(set(ends)) == 6
    (point,) = Scenario(
        title="t", size="4M", methods=("none",), repetitions=1, pairs=(["a", "b"],)
    ).points_on([])
    assert point.key.endswith("_ha+b_r1")


def place(host: str, *total_ms: float, to: str = "", method: str = "none") -> Place:
    points = [Point(method, None, 2, "0", True, "0", "corpus", n + 1, host, to) for n in range(len(total_ms))]
    qat = {"hardware_requests": 0, "software_requests": 0, "simulated": False}
    result = {"status": "completed", "options": {"method": method}, "qat": qat}
    results = [
        {**result, "time": {"total_ms": ms}, "traffic": {"throughput_mbps": 1e6 / ms}} for ms in total_ms
    ]
    return places(zip(points, results, strict=True))[0]


@pytest.mark.parametrize("published", [False, True])
def test_a_campaign_of_failures_is_reported(tmp_path: Path, published: bool) -> None:
    scenario = Scenario(title="t", size="4M", methods=("none", "zstd"), bandwidths=("0", "8M"), pairs="all")
    points = [
        {"point": asdict(point), "result": failure("no worker of the host <a> is there")}
        for point in scenario.points_on(["a", "b"])
    ]
    document = {"scenario": asdict(scenario), "host": {}, "hosts": {}, "points": points, "command": []}
    text = report.markdown(document, published=published)
    assert "12 points on a to b: no worker of the host <a> is there" in text
    assert "<a>" not in page.page(document, published=published)
    assert csv_text(document).count("failed") == len(points)
    if has_parquet():
        write_parquet(document, tmp_path / "points.parquet")


def test_which_host_for_which_method() -> None:
    rows = hosts.which_host([place("a", 100, 102), place("b", 200, 204)])
    assert rows == [["host", "none"], ["a", "1.00 (1 of 1)"], ["b", "2.00 (0 of 1)"]]
    assert hosts.which_host([place("a", 100, 102)]) == []
    once = hosts.which_host([place("a", 100), place("b", 200)])
    assert once[1] == ["a", "1.00 (0 of 1)"]


def test_the_matrix_of_links() -> None:
    group = [place("a", 100, 102, to="b"), place("a", 50, 51, to="b", method="zstd"), place("b", 80, to="a")]
    assert hosts.link_matrix(group) == [
        ["from", "to a", "to b"],
        ["a", "", "19804, zstd"],
        ["b", "12500", ""],
    ]


def test_a_machine_is_held_by_one(tmp_path: Path) -> None:
    def never() -> None:
        return

    with (
        machine.machine_lock(1.0, never),
        pytest.raises(Exception, match="has held this machine"),
        machine.machine_lock(0.3, never),
    ):
        pass
    with machine.machine_lock(1.0, never):
        pass


def test_a_folder_whose_users_are_gone_is_removed() -> None:
    left = machine.private_folder() / "campaign-of-the-dead"
    left.mkdir()
    (left / machine.LEASE).touch()
    ours = machine.campaign_folder("test")
    assert not left.exists()
    assert ours.exists()
    machine.sweep()
    assert ours.exists()
    machine.forget("test")
    assert not ours.exists()
