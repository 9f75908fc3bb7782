from __future__ import annotations

import random
from pathlib import Path

import pytest

import qat.binding
from pipeline.codecs import METHODS, bindings
from pipeline.codecs.method import CodecSettings
from pipeline.errors import CodecError
from tests.support.harness import ROOT

TEXT = b"".join(b"line %d of the guest's memory\n" % number for number in range(40_000))[: 512 << 10]
NOISE = random.Random(3).randbytes(512 << 10)

compressing = [name for name in METHODS if name != "none"]
every_level = [
    (name, level)
    for name in compressing
    for level in {*METHODS[name].levels[:1], METHODS[name].default_level, *METHODS[name].levels[-1:]}
]


def compressed(name: str, data: bytes, settings: CodecSettings) -> bytes:
    method = METHODS[name]
    encoder = method.open_encoder(settings)
    dest = memoryview(bytearray(max(len(data), method.bound_bytes(len(data), settings))))
    return bytes(dest[: encoder.compress(memoryview(data), dest)])


@pytest.mark.parametrize(("name", "level"), every_level)
@pytest.mark.parametrize("size", [4096, 5 * 4096, 512 << 10])
def test_every_level_gives_the_bytes_back(name: str, level: int, size: int) -> None:
    settings = CodecSettings(level=level)
    packed = compressed(name, TEXT[:size], settings)
    if len(packed) >= size:
        assert name == "zlib" and level == 0  # stored: travels raw
        return
    out = bytearray(size)
    METHODS[name].open_decoder(settings).decompress(memoryview(packed), memoryview(out))
    assert out == TEXT[:size]


@pytest.mark.parametrize("name", compressing)
def test_noise_is_reported_as_no_smaller(name: str) -> None:
    method, settings = METHODS[name], CodecSettings(level=1)
    encoder = method.open_encoder(settings)
    dest = memoryview(bytearray(max(len(NOISE), method.bound_bytes(len(NOISE), settings))))
    assert encoder.compress(memoryview(NOISE), dest) >= len(NOISE)
    # and the codec is none the worse for it
    length = encoder.compress(memoryview(TEXT), dest)
    out = bytearray(len(TEXT))
    method.open_decoder(settings).decompress(dest[:length], memoryview(out))
    assert out == TEXT


@pytest.mark.parametrize("name", compressing)
@pytest.mark.parametrize("expected", [len(TEXT) - 1, len(TEXT) + 1, 4096])
def test_a_decoder_fills_exactly_what_is_expected(name: str, expected: int) -> None:
    settings = CodecSettings(level=1)
    packed = compressed(name, TEXT, settings)
    around = bytearray(b"\xaa" * (expected + 64))
    decoder = METHODS[name].open_decoder(settings)
    with pytest.raises(CodecError):
        decoder.decompress(memoryview(packed), memoryview(around)[32 : 32 + expected])
    assert around[:32] == around[-32:] == b"\xaa" * 32
    out = bytearray(len(TEXT))
    decoder.decompress(memoryview(packed), memoryview(out))  # usable after the error
    assert out == TEXT


@pytest.mark.parametrize("name", compressing)
def test_half_a_packet_is_refused(name: str) -> None:
    settings = CodecSettings(level=1)
    packed = compressed(name, TEXT, settings)
    with pytest.raises(CodecError):
        METHODS[name].open_decoder(settings).decompress(
            memoryview(packed[: len(packed) // 2]), memoryview(bytearray(len(TEXT)))
        )


@pytest.mark.parametrize("name", METHODS)
def test_codes_and_levels(name: str) -> None:
    method = METHODS[name]
    assert method.code != 0
    assert not method.levels or method.default_level in method.levels
    assert [other.code for other in METHODS.values()].count(method.code) == 1


@pytest.mark.parametrize("member_bytes", [4 << 10, 64 << 10, 512 << 10])
def test_software_members_are_cut_for_a_device_that_decodes(member_bytes: int) -> None:
    from qat import gzip_ext

    whole = compressed("qatzip", TEXT, CodecSettings(level=1, qat_buffer_bytes=member_bytes))
    assert len(list(gzip_ext.walk(memoryview(whole), len(TEXT)))) == 1
    settings = CodecSettings(level=1, qat_buffer_bytes=member_bytes, decode_on_qat=True)
    packed = compressed("qatzip", TEXT, settings)
    members = list(gzip_ext.walk(memoryview(packed), len(TEXT)))
    assert len(members) == len(TEXT) // member_bytes
    assert {member.plain_bytes for member in members} == {member_bytes}


def test_generated_bindings_are_those_of_their_declarations(tmp_path: Path) -> None:
    builders = {f"pipeline/codecs/{name}.py": bindings.builder(name) for name in bindings.BINDINGS}
    builders["qat/_libqatzip.py"] = qat.binding.builder()
    for generated, builder in builders.items():
        fresh = tmp_path / Path(generated).name
        builder.emit_python_code(str(fresh))
        assert fresh.read_text() == (ROOT / generated).read_text(), f"{generated} is not of its declarations"
