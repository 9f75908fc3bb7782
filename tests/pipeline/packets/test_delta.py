"""Deltas of pages: what is packed is what comes out, and what is no delta changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guestmem.page import PAGE_BYTES
from pipeline.errors import BadPacket
from pipeline.packets.delta import LINES, Words, apply_group, change, group_bytes_range, pack_group


def pages_of(seed: int, pages: int) -> tuple[Words, Words]:
    """Pages, and what a guest made of them: from nothing to everything of each."""
    chance = np.random.default_rng(seed)
    old = chance.integers(0, 1 << 63, (pages, 512), dtype=np.uint64)
    new = old.copy()
    for page in range(pages):
        lines = chance.choice(LINES, chance.integers(0, LINES + 1), replace=False)
        for line in lines:
            if chance.random() < 0.5:
                new[page, line * 8 + chance.integers(8)] ^= np.uint64(1) << np.uint64(chance.integers(63))
            else:
                new[page, line * 8 : line * 8 + 8] = chance.integers(0, 1 << 63, 8, dtype=np.uint64)
    return old, new


@given(st.integers(0, 1 << 30), st.integers(1, 20))
@settings(deadline=None)
def test_old_pages_become_new_ones(seed: int, pages: int) -> None:
    old, new = pages_of(seed, pages)
    found = change(new, old)
    group = pack_group(new, found)
    least, most = group_bytes_range(int(found.as_delta.sum()))
    assert least <= len(group) <= most
    came = old[found.as_delta]
    if len(came):
        apply_group(memoryview(group), came)
    np.testing.assert_array_equal(came, new[found.as_delta])


@given(st.integers(0, 1 << 30), st.data())
@settings(deadline=None)
def test_what_is_no_group_changes_nothing(seed: int, data: st.DataObject) -> None:
    old, new = pages_of(seed, 5)
    found = change(new, old)
    group = bytearray(pack_group(new, found))
    before = old[found.as_delta]
    if not len(before):
        return
    at = data.draw(st.integers(0, group_bytes_range(len(before))[0] - 1))
    kind = data.draw(st.sampled_from(["cut", "longer", "flipped"]))
    if kind == "flipped":
        group[at] ^= 1 << data.draw(st.integers(0, 7))
    bad = {"cut": group[:at], "longer": group + b"x", "flipped": group}[kind]
    came = before.copy()
    try:
        apply_group(memoryview(bad), came)
    except BadPacket:
        np.testing.assert_array_equal(came, before)
    else:
        assert kind == "flipped"


def test_a_page_that_changed_too_much_is_no_delta() -> None:
    old = np.zeros((3, 512), np.uint64)
    new = old.copy()
    new[0, ::8] = 1  # a word of every line
    new[1, : 41 * 8] = 7  # 41 lines, all of each
    new[2, : 40 * 8] = 7
    found = change(new, old)
    assert found.as_delta.tolist() == [True, False, True]
    assert found.as_xor.tolist() == [True, False, False]


def test_a_page_that_is_as_it_was_takes_nine_bytes() -> None:
    same = np.ones((1, 512), np.uint64)
    assert len(pack_group(same, change(same, same.copy()))) == 9


def test_bits_behind_the_last_page_are_refused() -> None:
    old = np.ones((3, 512), np.uint64)
    group = bytearray(pack_group(old, change(old, old.copy())))
    group[-1] |= 0x80
    with pytest.raises(BadPacket, match="behind the last page"):
        apply_group(memoryview(group), old)


def test_a_delta_is_smaller_than_its_page() -> None:
    old, new = pages_of(3, 64)
    found = change(new, old)
    assert len(pack_group(new, found)) < PAGE_BYTES * int(found.as_delta.sum())
