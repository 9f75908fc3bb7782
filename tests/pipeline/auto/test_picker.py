"""What method auto's channels open for the candidates."""

from __future__ import annotations

import pytest

from guestmem.page import PAGE_BYTES
from pipeline.auto.candidates import CPU_CANDIDATES, NONE, QATZIP
from pipeline.auto.picker import AutoPicker
from pipeline.auto.statistics import Statistics
from pipeline.codecs.method import CodecSettings
from pipeline.errors import CodecUnavailable
from pipeline.packets.pacing import Wire
from qat import gzip_ext

CANDIDATES = (NONE, QATZIP, *CPU_CANDIDATES)
PACKET = b"".join(b"entry %08d of a table\0" % number for number in range(30_000))[: 512 << 10]


@pytest.fixture(autouse=True)
def _no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QATZIP_LIBRARY", "/nowhere/libqatzip.so.3")


def picker(settings: CodecSettings) -> AutoPicker:
    statistics = Statistics(1, 1, len(CANDIDATES))
    for index in range(4):
        statistics.choice[index] = CANDIDATES.index(QATZIP)
    return AutoPicker(0, 1, CANDIDATES, settings, statistics, Wire(0))


def test_the_channels_settings_reach_the_codec() -> None:
    for decode, members in ((True, 16), (False, 1)):
        auto = picker(CodecSettings(level=0, qat_buffer_bytes=32 << 10, decode_on_qat=decode))
        assert auto.pick(len(PACKET) // PAGE_BYTES) is QATZIP.method
        payload = memoryview(bytearray(len(PACKET)))
        length = auto.compress(memoryview(PACKET), payload)
        assert len(list(gzip_ext.walk(payload[:length], len(PACKET)))) == members


def test_without_fallback_no_channel_does_without_the_device() -> None:
    with pytest.raises(CodecUnavailable, match="needs a QAT device"):
        picker(CodecSettings(level=0, qat_fallback=False))
