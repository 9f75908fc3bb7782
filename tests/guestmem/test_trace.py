"""A trace of a guest: what is read is what was written, what is none is refused, and it is replayed."""

from __future__ import annotations

import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guestmem.ram import GuestRam
from guestmem.trace import Replay, Trace, TraceMemory, load_trace


def a_trace() -> Trace:
    chance = np.random.default_rng(1)
    words = chance.integers(1, 1 << 60, (5, 512), dtype=np.uint64)
    return Trace(
        256,
        np.array([1, 2, 200], np.uint32),
        chance.integers(1, 1 << 60, (3, 512), dtype=np.uint64),
        np.array([0.05, 0.05]),
        np.array([3, 2]),
        np.array([1, 7, 200, 1, 9], np.uint32),
        words,
    )


def test_what_is_saved_is_what_is_read(tmp_path: Path) -> None:
    trace = a_trace()
    trace.save(tmp_path / "trace")
    found = load_trace(tmp_path / "trace")
    for name, value in vars(trace).items():
        np.testing.assert_array_equal(getattr(found, name), value)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_damaged_file_is_refused_or_is_a_trace(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "trace"
    if not path.exists():
        a_trace().save(path)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / "damaged"
    damaged.write_bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    try:
        load_trace(damaged)
    except ValueError as error:
        assert str(error)


def header(text: str) -> bytes:
    padded = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode()


@pytest.mark.parametrize(
    "content",
    [
        header("{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000, 512), }"),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (), }"),
        header("(" * 100),
        b"",
    ],
)
def test_a_header_that_lies_is_refused(content: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "trace", "w") as archive:
        archive.writestr("ram_pages.npy", content)
    with pytest.raises(ValueError, match="ram_pages cannot be read"):
        load_trace(tmp_path / "trace")


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is no file"):
        load_trace(tmp_path / "pipe")


class Marked:
    def __init__(self) -> None:
        self.pages: list[int] = []

    def mark(self, pages: np.ndarray) -> None:
        self.pages += pages.tolist()


def test_it_goes_there_and_back(tmp_path: Path) -> None:
    trace = a_trace()
    trace.save(tmp_path / "trace")
    ram = GuestRam.create(256 * 4096, "trace")
    TraceMemory(tmp_path / "trace").fill(ram)
    first = ram.words.copy()
    marks = Marked()
    replay = Replay(ram, marks, trace)
    until = time.monotonic() + 20
    while replay.writes < 5 and time.monotonic() < until:
        time.sleep(replay.work())
    assert marks.pages == [1, 7, 200, 1, 9]
    np.testing.assert_array_equal(ram.words[[1, 9]], trace.words[3:])
    while replay.writes < 10 and time.monotonic() < until:
        time.sleep(replay.work())
    np.testing.assert_array_equal(ram.words, first)
    os.close(ram.fd)
