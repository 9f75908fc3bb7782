from __future__ import annotations

from guestmem.segment import create_segment
from tests.support.harness import leftovers

MIB = 1 << 20


def test_a_segment_has_no_name() -> None:
    before = leftovers()
    fd = create_segment("test", MIB, reserve=True)
    assert leftovers() <= before
    assert fd >= 0
