"""Decompressing on the device: what it can, what is counted, and that sender and receiver agree."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from pipeline.codecs import METHODS
from pipeline.codecs.igzip import Deflater
from pipeline.codecs.method import CodecSettings
from pipeline.codecs.qatzip import write_members
from qat import gzip_ext
from qat._libqatzip import ffi
from qat.child import ask_in_child
from qat.library import load
from qat.session import Session
from qat.status import QatStatusError
from qat.watchdog import Requests
from tests.support.emulated import emulator
from tests.support.harness import ROOT
from tests.support.two_hosts import receiver, sent

KIB = 1 << 10
PAGES = b"".join(b"entry %08d of a table\0" % number for number in range(30_000))[: 512 * KIB]
NO_LIBRARY = ("QATZIP_LIBRARY", "/nowhere/libqatzip.so.3")


def in_software(data: bytes, member_bytes: int) -> bytes:
    dest = memoryview(bytearray(gzip_ext.bound_bytes(len(data), member_bytes)))
    return bytes(dest[: write_members(Deflater(1), memoryview(data), dest, member_bytes)])


def in_a_child(environment: dict[str, str], ask: Callable[[], object]) -> object:
    """What `ask` returns where the environment is so. libqatzip is opened in no process that forks."""

    def question() -> str:
        os.environ.update(environment)
        return json.dumps(ask())

    return json.loads(ask_in_child(question, 20.0) or "null")


def device_says(environment: dict[str, str], packed: bytes, size: int, hw_buff_sz: int) -> object:
    """The name of qzDecompress's status, and what `total_in` says."""

    def ask() -> tuple[str, int]:
        session = Session(load(), level=1, hw_buff_sz=hw_buff_sz)
        into = ffi.from_buffer("unsigned char[]", bytearray(size))
        try:
            session.decompress(ffi.from_buffer(packed), len(packed), into, size)
        except QatStatusError as error:
            return error.name, session.total_in
        return "QZ_OK", session.total_in

    return in_a_child(environment, ask)


def test_the_emulated_device_refuses_what_libqatzip_refuses_without_software() -> None:
    whole, cut = in_software(PAGES, 512 * KIB), in_software(PAGES, 64 * KIB)
    first = in_software(PAGES[: 64 * KIB], 64 * KIB)
    both = first + in_software(PAGES[64 * KIB :], 512 * KIB)
    with emulator() as (environment, _):
        assert device_says(environment, cut, len(PAGES), 64 * KIB) == ["QZ_OK", len(cut)]
        assert device_says(environment, whole, len(PAGES), 512 * KIB) == ["QZ_OK", len(whole)]
        assert device_says(environment, whole, len(PAGES), 64 * KIB) == ["QZ_FAIL", 0]
        assert device_says(environment, both, len(PAGES), 64 * KIB) == ["QZ_FAIL", 0]
        tiny = in_software(PAGES[:100], 4 * KIB)
        assert device_says(environment, tiny, 100, 64 * KIB) == ["QZ_FAIL", 0]


@pytest.mark.parametrize(
    ("sizes", "device_bytes", "hardware", "software"),
    [([5, 5, 3], 13, 3, 0), ([5, 5, 3], 0, 0, 3), ([5, 5, 3], 10, 2, 1), ([5, 5, 3], 9, 1, 2)],
)
def test_requests_are_counted_by_what_the_library_says(
    sizes: list[int], device_bytes: int, hardware: int, software: int
) -> None:
    assert Requests.of(sizes, device_bytes) == Requests(hardware, software)


def test_the_counts_are_the_devices_own() -> None:
    command = [
        *(sys.executable, "-m", "qat.emulator", "--", sys.executable, "-m", "pipeline.run", "--json", "-"),
        *("--size", "32M", "--method", "qatzip", "--qat-decode", "hardware", "--packet-size", "208K"),
    ]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    said = re.search(r"it did (\d+) requests", ended.stderr)
    assert said is not None
    qat = json.loads(ended.stdout)["qat"]
    assert (qat["hardware_requests"], qat["software_requests"]) == (int(said[1]), 0)


def decoded(
    environment: dict[str, str], packed: bytes, buffer_bytes: int = 64 * KIB, *, fallback: bool = True
) -> object:
    """(hardware, software, reason) of a receiver that wants the device to decompress a packet."""

    def ask() -> tuple[int, int, str]:
        settings = CodecSettings(1, buffer_bytes, fallback, decode_on_qat=True)
        decoder = METHODS["qatzip"].open_decoder(settings)
        out = bytearray(len(PAGES))
        try:
            for _turn in range(5):
                decoder.decompress(memoryview(packed), memoryview(out))
        except Exception as error:
            return 0, 0, str(error)
        assert out == PAGES
        return decoder.qat.hardware_requests, decoder.qat.software_requests, decoder.qat.fallback_reason

    return in_a_child(environment, ask)


def packed_in_software(settings: CodecSettings, monkeypatch: pytest.MonkeyPatch) -> bytes:
    with monkeypatch.context() as patch:
        patch.setenv(*NO_LIBRARY)
        encoder = METHODS["qatzip"].open_encoder(settings)
    dest = memoryview(bytearray(len(PAGES)))
    return bytes(dest[: encoder.compress(memoryview(PAGES), dest)])


def test_a_sender_in_software_cuts_what_the_receivers_device_decompresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed = packed_in_software(CodecSettings(1, 64 * KIB, decode_on_qat=True), monkeypatch)
    with emulator() as (environment, _):
        assert decoded(environment, packed) == [5 * 8, 0, ""]


def test_members_for_no_device_are_done_and_counted_in_software(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = packed_in_software(CodecSettings(1, 64 * KIB), monkeypatch)
    with emulator() as (environment, _):
        reason = "members of 512K, requests of 64K at most"
        assert decoded(environment, packed) == [0, 5, reason]
        none = decoded(environment, packed, fallback=False)
        assert decoded(environment, packed, 512 * KIB) == [5, 0, ""]
    assert none == [0, 0, f"no device decompresses this: {reason}; the sender must cut them"]


def test_a_receiver_without_a_device_says_so_in_one_line() -> None:
    nowhere = ("env", "=".join(NO_LIBRARY))
    with receiver("--qat-decode", "hardware", "--json", "-", prefix=nowhere) as there:
        sender = sent(there.address, "--size", "8M", "--method", "qatzip", "--json", "-", prefix=nowhere)
        ended = there.end()
    assert (sender.code, ended.code) == (0, 0), ended.err
    warnings = [line for line in ended.err.splitlines() if "did not decompress" in line]
    assert len(warnings) == 1
    assert "libqatzip is missing" in warnings[0]
    assert "in software" in warnings[0]
    assert sender.result["qat"]["software_requests"] > 16
