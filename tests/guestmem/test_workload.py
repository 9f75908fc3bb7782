from __future__ import annotations

from pathlib import Path

import pytest

from guestmem.patterns import Pattern
from guestmem.workload import PRESETS, Phase, load_phases
from tests.support.writing import writer

GOOD_TOML = """
loop = false
[[phase]]
rate = "64M"
pattern = "zipf:1.1"
content = "delta"
write-bytes = "1K"
seconds = 2.5
[[phase]]
rate = 0
"""


def test_phases_are_read_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "phases.toml"
    path.write_text(GOOD_TOML)
    workload = load_phases(path, seed=5)
    assert (workload.loop, workload.seed) == (False, 5)
    assert workload.phases == (
        Phase(64 << 20, Pattern("zipf", (1.1,)), "delta", 1024, 2.5),
        Phase(0),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "at least one"),
        ("[[phase]", "not TOML"),
        ("speed = 1\n[[phase]]\nrate = 1", "speed"),
        ("[[phase]]\npattern = 'uniform'", "phase 1: needs rate"),
        ("[[phase]]\nrate = 'fast'", "phase 1: not a rate"),
        ("[[phase]]\nrate = -1", "phase 1: must be"),
        ("[[phase]]\nrate = 1\nseconds = 1\n[[phase]]\nrate = 1\npattern = 'x'", "phase 2: must be one of"),
        ("[[phase]]\nrate = 1\ncontent = 'silk'", "phase 1: must be one of"),
        ("[[phase]]\nrate = 1\nwrite-bytes = 5000", "phase 1: must be 1 to 4096"),
        ("[[phase]]\nrate = 1\nseconds = -1", "phase 1: seconds -1"),
        ("[[phase]]\nrate = 1\n[[phase]]\nrate = 1", "only the last"),
        ("[[phase]]\nrate = 1\ncolour = 1", "phase 1"),
    ],
)
def test_bad_phases_say_where_and_what(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "phases.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        load_phases(path)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_writes_and_says_why(name: str) -> None:
    reason, workload = PRESETS[name]
    assert len(reason) > 60
    hand, _, noted = writer(workload)
    for _ in range(10):
        hand.write(64)
    assert len(noted.pages) == 640
