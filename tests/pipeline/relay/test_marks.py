"""What a relay reads out of QEMU's streams."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.relay.marks import ForwardMarks, ReverseMarks, starts_main

MACHINE = b"pc-i440fx-10.0"
CONFIGURATION = b"QEVM" + (3).to_bytes(4, "big") + b"\x07" + len(MACHINE).to_bytes(4, "big") + MACHINE
WITH_RETURN_PATH = CONFIGURATION + bytes.fromhex("0800010000" + "0800020004" + "00000001")
RAM = b"\x01" + (2).to_bytes(4, "big") + b"\x03ram" + bytes(40)
DESCRIPTION = b'{"configuration": {"vmsd_name": "configuration"}, "page_size": 4096}'
TAIL = b"\x00\x06" + len(DESCRIPTION).to_bytes(4, "big") + DESCRIPTION
PACKAGE = bytes.fromhex("0800070004") + (500).to_bytes(4, "big") + bytes.fromhex("0800040000")


def marks(*parts: bytes) -> ForwardMarks:
    found = ForwardMarks()
    for part in parts:
        found.see(memoryview(part))
    return found


def test_a_return_path_is_seen_right_behind_the_configuration() -> None:
    assert marks(WITH_RETURN_PATH[:20]).has_return_path is None
    assert marks(WITH_RETURN_PATH).has_return_path is True
    assert marks(CONFIGURATION + RAM).has_return_path is False


def test_a_recovery_has_its_return_path_by_nature() -> None:
    recovery = bytes.fromhex("08000a0002016d")
    assert starts_main(recovery)
    assert marks(recovery).has_return_path is True
    assert not starts_main(b"GET / HTTP/1.0")


@given(st.integers(1, len(TAIL) - 1), st.binary(max_size=60))
def test_the_commit_byte_is_found_however_the_stream_is_cut(cut: int, before: bytes) -> None:
    found = marks(WITH_RETURN_PATH, RAM, before)
    may_end_in_it = found.may_end_in_commit(memoryview(TAIL[:cut]))
    found.see(memoryview(TAIL[:cut]))
    # Until what proves it has come, the block that ends so has to wait.
    assert found.committed or may_end_in_it
    found.see(memoryview(TAIL[cut:]))
    assert found.committed


def test_what_looks_like_the_end_in_a_guests_ram_is_not() -> None:
    found = marks(WITH_RETURN_PATH, RAM, TAIL)
    assert found.committed
    found.see(memoryview(bytes(len(DESCRIPTION) + 10)))
    assert not found.committed


def test_a_postcopys_package_is_seen() -> None:
    assert not marks(WITH_RETURN_PATH, RAM).postcopy
    assert marks(WITH_RETURN_PATH, RAM, PACKAGE[:7], PACKAGE[7:]).postcopy


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_shut_is_found_among_the_messages_of_a_return_path(cuts: list[int]) -> None:
    pong, request = bytes.fromhex("0002000400000001"), bytes.fromhex("0004000c") + bytes(12)
    looks_like_shut = bytes.fromhex("0004000c0001000400000000") + bytes(4)
    bitmap = bytes.fromhex("00050002016d") + (16).to_bytes(8, "big") + bytes(16) + bytes(range(8))
    stream = pong + request + bitmap + looks_like_shut + bytes.fromhex("0001000400000000")
    found, at = ReverseMarks(), 0
    for cut in cuts:
        found.see(memoryview(stream[at : at + cut]))
        at += cut
    assert found.shut == (at >= len(stream))
    found.see(memoryview(stream[at:]))
    assert found.shut
    assert found.shut_value == 0
