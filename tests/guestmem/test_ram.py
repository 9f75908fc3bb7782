from __future__ import annotations

import pytest

from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam

MIB = 1 << 20


def test_two_mappings_are_one_memory() -> None:
    ram = GuestRam.create(MIB, "test")
    other = ram.remap(writable=False)
    ram.words[3, 5] = 77
    assert other.words[3, 5] == 77
    with pytest.raises(ValueError, match="read-only"):
        other.words[3, 5] = 1


@pytest.mark.parametrize("size", [PAGE_BYTES - 1, PAGE_BYTES + 1])
def test_ram_is_whole_pages(size: int) -> None:
    with pytest.raises(ValueError, match="page"):
        GuestRam.create(size, "test")
