from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from guestmem.page import WORDS_PER_PAGE
from guestmem.zero import normal_mask


@given(st.lists(st.sampled_from(["zero", "first", "last", "middle"]), min_size=1, max_size=40))
def test_zero_pages_are_those_without_a_byte(kinds: list[str]) -> None:
    pages = np.zeros((len(kinds), WORDS_PER_PAGE), np.uint64)
    where = {"first": 0, "middle": 200, "last": WORDS_PER_PAGE - 1}
    for page, kind in zip(pages, kinds, strict=True):
        if kind != "zero":
            page[where[kind]] = 1 << 60
    assert normal_mask(pages).tolist() == [kind != "zero" for kind in kinds]
