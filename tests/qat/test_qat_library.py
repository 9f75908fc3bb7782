"""The real libqatzip, on its software path: its members and ours are the same format."""

from __future__ import annotations

import os

import pytest

from pipeline.codecs.igzip import Deflater, Inflater
from pipeline.codecs.qatzip import read_members, write_members
from pipeline.errors import CodecError
from qat import gzip_ext
from qat._libqatzip import ffi
from qat.library import Library, load
from qat.session import Session
from qat.status import LibraryMissing, QatError, QatStatusError, status_name

PAGES = b"".join(b"entry %08d of a table\0" % number for number in range(30_000))[: 512 << 10]


@pytest.fixture(scope="module")
def library() -> Library:
    try:
        return load()
    except LibraryMissing as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have libqatzip: {error}")
        pytest.skip(f"no libqatzip: {error}")


def software(library: Library, hw_buff_sz: int = 64 << 10) -> Session:
    return Session(library, level=1, hw_buff_sz=hw_buff_sz, sw_backup=True)


def packed_by(session: Session, data: bytes) -> bytes:
    dest = bytearray(len(data) * 9 // 8 + 4096)
    length = session.compress(
        ffi.from_buffer(data), len(data), ffi.from_buffer("unsigned char[]", dest, require_writable=True)
    )
    return bytes(dest[:length])


def packed_by_us(data: bytes, member_bytes: int) -> bytes:
    dest = memoryview(bytearray(gzip_ext.bound_bytes(len(data), member_bytes)))
    return bytes(dest[: write_members(Deflater(1), memoryview(data), dest, member_bytes)])


def unpacked_by(session: Session, packed: bytes, expected: int) -> bytes:
    dest = bytearray(expected)
    into = ffi.from_buffer("unsigned char[]", dest, require_writable=True)
    session.decompress(ffi.from_buffer(packed), len(packed), into, expected)
    return bytes(dest)


def unpacked_by_us(packed: bytes, expected: int) -> bytes:
    dest = bytearray(expected)
    read_members(Inflater(), memoryview(packed), memoryview(dest))
    return bytes(dest)


def test_no_device_is_said_by_name(library: Library) -> None:
    if os.path.exists("/dev/vfio"):
        pytest.skip("this host may have a device")
    with pytest.raises(QatStatusError) as raised:
        Session(library, level=1, hw_buff_sz=64 << 10)
    assert raised.value.name == "QZ_NOSW_NO_HW"


@pytest.mark.parametrize("member_bytes", [4 << 10, 64 << 10, 512 << 10])
def test_it_decodes_our_members(library: Library, member_bytes: int) -> None:
    packed = packed_by_us(PAGES, member_bytes)
    assert unpacked_by(software(library, member_bytes), packed, len(PAGES)) == PAGES


@pytest.mark.parametrize("size", [4096, 64 << 10, 512 << 10])
def test_we_decode_its_member(library: Library, size: int) -> None:
    packed = packed_by(software(library), PAGES[:size])
    assert len(list(gzip_ext.walk(memoryview(packed), size))) == 1
    assert unpacked_by_us(packed, size) == PAGES[:size]


def test_we_decode_several_of_its_members(library: Library) -> None:
    session = software(library)
    pieces = [PAGES[start : start + (64 << 10)] for start in range(0, len(PAGES), 64 << 10)]
    packed = b"".join(packed_by(session, piece) for piece in pieces)
    assert len(list(gzip_ext.walk(memoryview(packed), len(PAGES)))) == len(pieces)
    assert unpacked_by_us(packed, len(PAGES)) == PAGES
    assert unpacked_by(session, packed, len(PAGES)) == PAGES


@pytest.mark.parametrize("cut", [1, 3, 8, 9, 1000])
def test_its_truncated_member_is_refused_by_us(library: Library, cut: int) -> None:
    packed = packed_by(software(library), PAGES)
    with pytest.raises(CodecError):
        unpacked_by_us(packed[:-cut], len(PAGES))


@pytest.mark.parametrize("at", [0, 3, 17, 21, 500, -8, -1])
def test_its_corrupted_member_is_refused_by_us(library: Library, at: int) -> None:
    packed = bytearray(packed_by(software(library), PAGES))
    packed[at] ^= 0x10
    with pytest.raises(CodecError):
        unpacked_by_us(bytes(packed), len(PAGES))


def test_a_session_works_on_after_a_bad_member(library: Library) -> None:
    session = software(library)
    packed = packed_by(session, PAGES)
    for bad in (packed[:-3], packed[: len(packed) // 2]):
        with pytest.raises(QatError):
            unpacked_by(session, bad, len(PAGES))
        assert unpacked_by(session, packed, len(PAGES)) == PAGES


def test_a_session_is_for_the_process_that_opened_it(library: Library) -> None:
    session = software(library)
    pid = os.fork()
    if pid == 0:
        try:
            packed_by(session, PAGES)
        except QatError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_unknown_codes_have_a_name_too() -> None:
    assert status_name(-103) == "QZ_NOSW_NO_INST_ATTACH"
    assert "-77" in status_name(-77)
