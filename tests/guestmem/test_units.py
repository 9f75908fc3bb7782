from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmem.units import parse_bytes_per_second, parse_size, show_rate
from guestmem.workload import MAX_RATE, parse_rate


def test_sizes() -> None:
    assert [parse_size(text) for text in ("4096", "512K", "1.5G", "2MiB", "1t")] == [
        4096, 512 << 10, 3 << 29, 2 << 20, 1 << 40,
    ]  # fmt: skip


DECIMAL = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
BINARY = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@pytest.mark.parametrize(
    ("text", "bytes_per_second"),
    [
        ("1Gbit", 125_000_000),
        ("100Mbit", 12_500_000),
        ("2.5Gbit", 312_500_000),
        ("0.1Gbit", 12_500_000),
        ("8bit", 1),
        ("0bit", 0),
        ("64M", 64 << 20),
        ("1.5G", 3 << 29),
        ("0", 0),
    ],
)
def test_a_rate_is_bytes_or_bits_per_second(text: str, bytes_per_second: int) -> None:
    assert parse_rate(text) == bytes_per_second


@given(st.integers(8, 10**6), st.sampled_from(["", *"KMG"]), st.sampled_from(["", "i"]))
def test_a_rate_in_bytes_is_a_size(number: int, unit: str, infix: str) -> None:
    text = f"{number}{unit}" + (f"{infix}B" if unit else "")
    assert parse_bytes_per_second(text) == parse_size(text) == number * BINARY[unit]


@given(
    st.integers(8, 10**6),
    st.integers(0, 999),
    st.sampled_from(sorted(DECIMAL)),
    st.sampled_from([str.lower, str.upper, str.title, str]),
)
def test_bits_are_exact_and_case_does_not_matter(
    whole: int, thousandths: int, unit: str, case: type[str]
) -> None:
    expected = (whole * 1000 + thousandths) * DECIMAL[unit] // 8000
    assert parse_bytes_per_second(case(f"{whole}.{thousandths:03d}{unit}bit")) == expected


@given(st.floats(8, 1e6, allow_nan=False).map(lambda number: f"{number:.3f}"))
def test_a_unit_more_is_a_thousand_times_as_much(number: str) -> None:
    kilo, mega = parse_bytes_per_second(f"{number}kbit"), parse_bytes_per_second(f"{number}Mbit")
    assert kilo == mega // 1000


@pytest.mark.parametrize("text", ["fast", "", "1Gbits", "1Gibit", "Gbit", "1 G bit", "1e3Mbit", "\u0661bit"])
def test_what_is_no_rate_is_refused_with_what_is_valid(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a rate.*512K.*100Mbit"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["-1", "-1Mbit", "-0.1", "17T", "141Tbit"])
def test_a_rate_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="0 to 16T"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["1bit", "0.5", "0.0001Kbit"])
def test_a_rate_never_comes_out_as_no_limit(text: str) -> None:
    with pytest.raises(ValueError, match="less than a byte"):
        parse_rate(text)


@given(
    st.text(max_size=12)
    | st.from_regex(re.compile(r"-?[0-9.]{1,6} ?[kmgtKMGT]?i?(b|B|bit)?"), fullmatch=True)
)
def test_any_text_is_a_rate_in_range_or_refused(text: str) -> None:
    try:
        rate = parse_rate(text)
    except ValueError:
        return
    assert 0 <= rate <= MAX_RATE
    assert (rate == 0) == (float(re.sub("[^0-9.]", "", text)) == 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("50M", "50 MiB/s"),
        ("64MiB", "64 MiB/s"),
        ("12500000", "12.5 MB/s"),
        ("1Gbit", "1 Gbit/s"),
        ("2.5gbit", "2.5 Gbit/s"),
        ("500KBIT", "500 kbit/s"),
        ("800bit", "800 bit/s"),
    ],
)
def test_a_rate_is_shown_as_it_was_written(text: str, words: str) -> None:
    assert show_rate(text) == words
