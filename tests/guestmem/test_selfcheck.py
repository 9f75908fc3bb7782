from __future__ import annotations

import numpy as np
import pytest

from guestmem.ram import GuestRam
from guestmem.selfcheck import inconsistency
from guestmem.workload import self_check
from tests.support.writing import MIB, writer


def selfchecked(writes: int) -> GuestRam:
    hand, ram, _ = writer(self_check(MIB), MIB)
    left = writes
    while left:
        left -= hand.write(min(left, 64))
    return ram


@pytest.mark.parametrize("writes", [0, 1, 100, 255, 256, 257, 1000, 256 * 256 - 1, 256 * 256 + 3])
def test_one_moment_of_the_self_check_is_consistent(writes: int) -> None:
    assert inconsistency(selfchecked(writes)) is None


@pytest.mark.parametrize("page", [0, 1, 50, 150, 254])
def test_a_stale_or_lost_page_is_found(page: int) -> None:
    ram = selfchecked(1000)
    ram.words.view(np.uint8)[page, 0] -= 1
    if page in (int(np.flatnonzero(np.diff(selfchecked(1000).words.view(np.uint8)[:, 0]))[0]),):
        return  # the page under the guest's hand may be of either moment
    assert inconsistency(ram) is not None
    ram.words[page] = 0
    assert inconsistency(ram) is not None
