from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codecs.igzip import Deflater, Inflater
from pipeline.codecs.qatzip import read_members, write_members
from pipeline.errors import CodecError
from qat import gzip_ext


def members_of(data: bytes, member_bytes: int) -> bytes:
    dest = memoryview(bytearray(gzip_ext.bound_bytes(len(data), member_bytes)))
    return bytes(dest[: write_members(Deflater(1), memoryview(data), dest, member_bytes)])


@given(st.binary(min_size=1, max_size=20_000), st.sampled_from([4096, 8192, 65536]))
def test_any_gzip_reader_reads_our_members(data: bytes, member_bytes: int) -> None:
    packed = members_of(data, member_bytes)
    assert gzip.decompress(packed) == data
    walked = list(gzip_ext.walk(memoryview(packed), len(data)))
    assert [member.plain_bytes for member in walked] == [
        len(data[start : start + member_bytes]) for start in range(0, len(data), member_bytes)
    ]
    for index, member in enumerate(walked):
        piece = data[index * member_bytes :][:member_bytes]
        assert zlib.decompress(packed[member.deflate_start : member.deflate_end], -15) == piece
        assert member.crc32 == zlib.crc32(piece)


@given(st.binary(min_size=1, max_size=20_000), st.data())
def test_truncated_members_are_refused(data: bytes, draw: st.DataObject) -> None:
    packed = members_of(data, 4096)
    cut = draw.draw(st.integers(1, len(packed)))
    with pytest.raises(CodecError):
        read_members(Inflater(), memoryview(packed[:-cut]), memoryview(bytearray(len(data))))


@given(st.binary(min_size=1, max_size=9000), st.data())
def test_a_flipped_bit_never_gives_other_bytes(data: bytes, draw: st.DataObject) -> None:
    packed = bytearray(members_of(data, 4096))
    bit = draw.draw(st.integers(0, len(packed) * 8 - 1))
    packed[bit // 8] ^= 1 << bit % 8
    out = bytearray(len(data))
    try:
        read_members(Inflater(), memoryview(packed), memoryview(out))
    except CodecError:
        return
    assert out == data  # only a byte that carries nothing (time, system) may go unnoticed


@given(st.binary(max_size=300), st.integers(0, 5000))
def test_junk_is_refused(junk: bytes, expected: int) -> None:
    out = bytearray(expected)
    if not junk and not expected:
        return
    with pytest.raises(CodecError):
        read_members(Inflater(), memoryview(junk), memoryview(out))


def test_a_member_that_claims_more_than_is_expected_is_refused() -> None:
    packed = members_of(b"x" * 9000, 4096)
    with pytest.raises(CodecError, match="more than"):
        read_members(Inflater(), memoryview(packed), memoryview(bytearray(8000)))


def test_trailing_bytes_are_refused() -> None:
    packed = members_of(b"x" * 9000, 4096)
    with pytest.raises(CodecError):
        read_members(Inflater(), memoryview(packed + b"\0"), memoryview(bytearray(9000)))


def test_the_layout_is_the_devices() -> None:
    packed = members_of(b"A" * 5000, 4096)
    deflate = int.from_bytes(packed[20:24], "little")
    assert packed[:16] == bytes.fromhex("1f8b0804 00000000 00 ff 0c00 515a 0800")
    assert int.from_bytes(packed[16:20], "little") == 4096
    assert packed[24 + deflate + 8 :][:4] == bytes.fromhex("1f8b0804")


@pytest.mark.parametrize(
    ("plain", "deflate", "fits"),
    [
        (65536, 1000, True),
        (65537, 1000, False),
        (65536, 65536 * 9 // 8 + 1024, True),
        (65536, 65536 * 9 // 8 + 1025, False),
    ],
)
def test_what_a_device_decompresses(plain: int, deflate: int, fits: bool) -> None:
    assert gzip_ext.Member(24, 24 + deflate, plain, 0).fits_device(65536) == fits
