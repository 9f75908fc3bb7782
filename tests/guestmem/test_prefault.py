from __future__ import annotations

import os

import pytest

from guestmem import prefault
from guestmem.page import PAGE_BYTES
from guestmem.prefault import NoMemoryBehind, populate
from guestmem.ram import GuestRam
from guestmem.segment import SHM
from pipeline.processes.usage import Usage

MIB = 1 << 20


def test_populated_pages_fault_no_more() -> None:
    ram = GuestRam.create(32 * MIB, "test")
    populate(ram.mapping, write=True, first_share=0.4)
    before = Usage.now()
    ram.words[:, 0] = 1
    assert (Usage.now() - before).minor_faults < 80
    lazy = GuestRam.create(32 * MIB, "test")
    before = Usage.now()
    lazy.words[:, 0] = 1
    assert (Usage.now() - before).minor_faults > 400


def test_memory_that_is_not_there_is_an_error_and_no_sigbus() -> None:
    ram = GuestRam.create(MIB, "test")
    os.ftruncate(ram.fd, PAGE_BYTES)
    with pytest.raises(NoMemoryBehind, match=str(SHM)):
        populate(ram.mapping, write=True)


@pytest.mark.parametrize("first_share", [0.0, 0.4])
def test_populate_tells_how_far_it_is(first_share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefault, "CHUNK_BYTES", MIB)
    ram = GuestRam.create(8 * MIB, "test")
    shares: list[float] = []
    populate(ram.mapping, write=True, first_share=first_share, on_share=shares.append)
    assert shares == sorted(shares)
    assert len(shares) >= 8
    assert shares[-1] == 1
