from __future__ import annotations

import numpy as np
import pytest

from guestmem.patterns import parse_pattern

PATTERNS = ["uniform", "sequential", "hotspot:0.8,0.1", "hotspot:1,1", "zipf:0.5", "zipf:1", "zipf:1.3"]


@pytest.mark.parametrize("text", PATTERNS)
@pytest.mark.parametrize("pages", [256, 257, 100_000])
def test_a_pattern_stays_within_ram_and_depends_on_its_seed_alone(text: str, pages: int) -> None:
    pattern = parse_pattern(text)
    one, again, other = (pattern.stream(pages, seed) for seed in (3, 3, 4))
    drawn = np.concatenate([one(500), one(1500)])
    assert drawn.min() >= 0
    assert drawn.max() < pages
    np.testing.assert_array_equal(drawn, np.concatenate([again(500), again(1500)]))
    if text != "sequential":
        assert (other(2000) != drawn).any()


def test_patterns_have_their_shape() -> None:
    pages, count = 10_000, 200_000
    uniform = parse_pattern("uniform").stream(pages, 1)(count)
    assert np.bincount(uniform, minlength=pages).max() < 60
    hot = parse_pattern("hotspot:0.9,0.1").stream(pages, 1)(count)
    assert abs((hot < pages * 0.1).mean() - 0.9) < 0.01
    counts = np.sort(np.bincount(parse_pattern("zipf:1").stream(pages, 1)(count), minlength=pages))[::-1]
    assert counts[:100].sum() / count > 0.4
    assert (counts > 0).sum() > 0.5 * pages
    sequential = parse_pattern("sequential").stream(7, 1)
    assert [*sequential(5), *sequential(5)] == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2]


@pytest.mark.parametrize(
    "text",
    ["random", "uniform:1", "hotspot:2,0.1", "hotspot:0.5", "hotspot:0.5,0", "zipf:0", "zipf:a", "zipf:1,2"],
)
def test_a_pattern_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|takes|parameters"):
        parse_pattern(text)
