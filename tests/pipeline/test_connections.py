"""The parts of a connection: addresses, names in certificates, outputs, what waits for the wire."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam
from guestmem.segment import SHM
from pipeline.cli import recv, run
from pipeline.destination.output import Output
from pipeline.destination.verification import region_bytes_of, region_digests
from pipeline.errors import UsageError
from pipeline.net.address import Address, name_of, parse_address
from pipeline.net.tls import certificate_names
from pipeline.packets.checksums import block_crcs, crcs_in_ram
from pipeline.packets.counters import Count, Counters
from pipeline.packets.page_runs import runs
from pipeline.transports.tcp.client import wire
from pipeline.transports.tcp.client.sender_rows import FULL, SENT_BYTES, UNACKNOWLEDGED, SenderRows
from pipeline.transports.tcp.protocol import VERSION, VERSIONS
from tests.support.harness import read


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host:7000", Address("host", 7000)),
        ("10.0.0.1:1", Address("10.0.0.1", 1)),
        ("[fe80::1%eth0]:65535", Address("fe80::1%eth0", 65535)),
        ("[fe80::1%br-LAN_0.100]:1", Address("fe80::1%br-LAN_0.100", 1)),
        ("[fe80::1%3]:1", Address("fe80::1%3", 1)),
        ("unix:/run/x", Address("", 0, "/run/x")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:", ":7000", "host:x", "host:65536", "::1:7000", "a b:1", "unix:", "unix:" + "x" * 108],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be HOST:PORT|Unix socket"):
        parse_address(text)


def test_only_loopback_is_local() -> None:
    assert Address("127.0.0.1", 1).is_local()
    assert Address("::1", 1).is_local()
    assert Address("", 0, "/x").is_local()
    assert not Address("192.0.2.1", 1).is_local()
    assert not Address("0.0.0.0", 1).is_local()
    assert not Address("::", 1).is_local()


def test_a_zone_is_of_this_host() -> None:
    with pytest.raises(OSError, match="say on which interface"):
        Address("fe80::1", 7000).listen()
    with pytest.raises(OSError, match="say on which interface"):
        Address("fe80::1", 7000).connect(1)
    with pytest.raises(OSError, match="cannot be resolved"):
        Address("fe80::1%nosuch", 7000).is_local()
    assert not Address("fe80::1%lo", 7000).is_local()
    assert name_of(("fe80::1", 7, 0, 1)) == "[fe80::1%lo]:7"
    assert name_of(("2001:db8::1", 7, 0, 0)) == "[2001:db8::1]:7"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--transport", "rdma"], "must be one of queue, tcp"),
        (["--transport", "tcp", "--receivers", "3"], "one for each channel"),
        (["--tls-dir", "/nowhere"], "is for --transport tcp"),
        (["--transport", "tcp", "--tls-dir", "/nowhere"], "ca-cert.pem cannot be read"),
        (["--transport", "tcp", "--tls-peer", "x"], "is for --tls-dir"),
        (["--transport", "tcp", "--reconnect", "-1"], "must be 0 to"),
    ],
)
def test_a_run_over_tcp_that_cannot_be(arguments: list[str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        read(run, *arguments)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "--listen"),
        (["--listen", "x"], "must be HOST:PORT"),
        (["--listen", "unix:/tmp/x", "--output", "/nowhere/x"], "folder that can be written"),
        (["--listen", "unix:/tmp/x", "--output", "/tmp"], "folder that can be written"),
        (["--listen", "unix:/tmp/x", "--output", "/tmp/no-copy", "--output-shm", "x"], "name one of them"),
        (["--listen", "unix:/tmp/x", "--output-shm", "a/b"], "letters, digits"),
        (["--listen", "unix:/tmp/x", "--output", "/tmp/no-copy", "--runs", "2"], "takes one copy"),
        (["--listen", "unix:/tmp/x", "--max-channels", "65"], "must be 1 to 64"),
        (["--listen", "nowhere.invalid:7000"], "cannot be resolved"),
    ],
)
def test_a_receiver_that_cannot_be(arguments: list[str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        read(recv, *arguments)


def test_a_common_name_is_no_name() -> None:
    certificate = {
        "subject": ((("commonName", "cn"),),),
        "subjectAltName": (("DNS", "one"), ("IP Address", "10.0.0.1"), ("URI", "x://y"), ("email", "a@b")),
    }
    assert certificate_names(certificate) == ["one", "10.0.0.1"]
    assert certificate_names({}) == []


def test_the_version_window_has_no_zero() -> None:
    assert VERSION in VERSIONS
    assert {1, 2, 3} == VERSIONS


def image(pages: int) -> GuestRam:
    ram = GuestRam.create(pages * PAGE_BYTES, "test")
    ram.words[::3] = 7
    return ram


def test_an_output_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.write_text("old")
    reserved = Output(str(target)).reserve(700 * PAGE_BYTES)
    ram = reserved.ram
    ram.words[::3] = 7
    assert target.read_text() == "old"
    assert reserved.commit() == f"file {target}"
    assert target.read_bytes() == bytes(ram.memory)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_named_shared_memory_appears_only_when_it_is_committed() -> None:
    name = f"ramferry-keep-{os.getpid()}"
    output, path = Output(shm_name=name), SHM / name
    try:
        reserved = output.reserve(1 << 20)
        ram = reserved.ram
        assert not path.exists()
        ram.words[5] = 9
        reserved.commit()
        assert path.read_bytes() == bytes(ram.memory)
        with pytest.raises(UsageError, match="already"):
            output.check()
    finally:
        path.unlink(missing_ok=True)


def test_digests_name_the_region() -> None:
    one, other = image(1024), image(1024)
    other.words[600, 3] ^= 1
    ours, theirs = region_digests(one, 1 << 20), region_digests(other, 1 << 20)
    assert [index for index, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]] == [2]


@pytest.mark.parametrize("size", [1 << 20, 1 << 30, (1 << 40) + PAGE_BYTES, 16 << 40])
def test_regions_are_few_and_whole_pages(size: int) -> None:
    region = region_bytes_of(size)
    assert region % PAGE_BYTES == 0
    assert -(-size // region) <= 1024


def test_checksums_of_pages_side_by_side_and_scattered() -> None:
    ram = image(200)
    ram.words[:] = np.arange(ram.words.size, dtype=np.uint64).reshape(ram.words.shape)
    beside = np.arange(20, 90, dtype=np.uint32)
    whole = ram.memory[20 * PAGE_BYTES : 90 * PAGE_BYTES]
    assert crcs_in_ram(ram.memory, beside, 16) == block_crcs(whole, 16)
    scattered = np.array([1, 2, 3, 7, 8, 100, 150, 151], np.uint32)
    found = [(run.start, run.stop - run.start) for run in runs(scattered)]
    assert found == [(1, 3), (7, 2), (100, 1), (150, 2)]
    gathered = ram.words[scattered].copy().data.cast("B")
    assert crcs_in_ram(ram.memory, scattered, 3) == block_crcs(gathered, 3)
    assert runs(scattered[:0]) == [] and crcs_in_ram(ram.memory, scattered[:0], 16) == []


def test_a_wire_of_unknown_speed_has_time_until_it_has_shown_that_it_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1_000_000_000]
    monkeypatch.setattr("pipeline.transports.tcp.client.wire.time.monotonic_ns", lambda: now[0])
    sent, rows = Counters(1), SenderRows(2)
    seen = wire.SocketWire(0, sent, rows)
    assert seen.is_unknown() and not wire.SocketWire(1 << 20, sent, rows).is_unknown()
    assert seen.slack_ns() == wire.UNKNOWN_NS
    sent.rows[0, Count.WIRE_BYTES] = 300_000
    now[0] += 100_000_000
    assert seen.slack_ns() == wire.UNKNOWN_NS, "nothing is acknowledged"
    rows.rows[0, SENT_BYTES], rows.rows[0, UNACKNOWLEDGED] = 300_000, 200_000
    assert seen.slack_ns() == 200_000_000, "100,000 bytes went in 100 ms"
    sent.rows[0, Count.WIRE_BYTES] = rows.rows[0, SENT_BYTES] = wire.PROVEN_BYTES + 200_000
    assert seen.slack_ns() == 0
    rows.rows[:, FULL] = 1
    assert seen.slack_ns() > 0


def test_the_wire_is_measured_while_the_sockets_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr("pipeline.transports.tcp.client.wire.time.monotonic_ns", lambda: now[0])
    sent, rows = Counters(1), SenderRows(2)
    seen = wire.SocketWire(0, sent, rows)
    assert seen.use().bytes_per_second is None
    for step in range(1, 20):
        now[0] = step * 50_000_000
        rows.rows[0, SENT_BYTES] = step * 5_000_000
        rows.rows[:, FULL] = 1
        used = seen.use()
    assert used.bytes_per_second == pytest.approx(100e6)
    sent.rows[0, Count.WIRE_BYTES] = rows.acknowledged() + 10_000_000
    assert seen.slack_ns() == pytest.approx(100_000_000, rel=0.01)
    rows.rows[:, FULL] = 0
    now[0] += 50_000_000
    seen.use()
    now[0] += 50_000_000
    later = seen.use()
    assert later.bytes_per_second == pytest.approx(100e6)
    assert later.idle_ns > used.idle_ns and later.busy_ns == used.busy_ns
    rows.rows[0, UNACKNOWLEDGED] = 1000
    assert rows.acknowledged() == 19 * 5_000_000 - 1000


def test_senders_that_had_nothing_to_send_do_not_make_a_full_wire_look_fast() -> None:
    """Of eight senders at 50 Mbit/s three had something to send at first, and all were full; megabytes went
    raw (9.8 s where zstd 9 took 3.3 s)."""
    sent, rows = Counters(1), SenderRows(8)
    assert not rows.full()
    rows.rows[:3, FULL] = 1
    rows.rows[:3, SENT_BYTES] = 1 << 20
    assert rows.full()
    seen = wire.SocketWire(0, sent, rows)
    assert seen.fitting_pages(512) == 128
    rows.rows[:2, FULL] = 0
    assert not rows.full()
    assert seen.fitting_pages(512) == 512
