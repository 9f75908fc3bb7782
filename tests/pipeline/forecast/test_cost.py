"""What a byte costs: with deltas, by how long ago a page went; and what copies cost here."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.forecast.beside import Beside, beside_here
from pipeline.forecast.cost import Changes, Cost
from pipeline.forecast.with_deltas import deltas_of

COST = Cost(4.0, 1.0, 0.4)
CHANGES = Changes((0.25, 1.0), (0.1, 0.4))
NORMAL_BYTES = float(1 << 30)


def test_the_longer_a_round_takes_the_more_of_a_page_has_changed() -> None:
    deltas = deltas_of(CHANGES, NORMAL_BYTES, 1 << 30)
    assert deltas is not None
    shares = [deltas.later(COST, seconds).wire_share for seconds in (0.1, 0.25, 0.5, 1.0, 9.0)]
    assert shares == sorted(shares)
    assert shares[0] == shares[1] < shares[3] == shares[4] < COST.wire_share
    assert deltas.first(COST).send_ns > COST.send_ns


@pytest.mark.parametrize(
    ("changes", "budget"),
    [(Changes(), 1 << 30), (CHANGES, 0), (Changes((0.5,), (0.99,)), 1 << 30)],
)
def test_no_deltas_without_pages_that_come_back_nor_memory_nor_a_gain(changes: Changes, budget: int) -> None:
    assert deltas_of(changes, NORMAL_BYTES, budget) is None


def test_more_memory_covers_more_pages() -> None:
    covered = [deltas_of(CHANGES, NORMAL_BYTES, budget << 20) for budget in (64, 256, 1024, 4096)]
    shares = [one.later(COST, 0.5).wire_share for one in covered if one is not None]
    assert len(shares) == 4
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[2] == shares[3]


def test_copies_are_measured_where_there_are_pages() -> None:
    pages = np.ones((4096, 512), np.uint64)
    found = beside_here(pages, 2)
    assert all(0.01 < one < 50 for one in (found.scan_ns, found.recv_ns, found.send_ns))
    assert beside_here(pages[:0], 2) == Beside()
