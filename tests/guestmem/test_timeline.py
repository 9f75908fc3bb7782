from __future__ import annotations

import pytest

from guestmem.timeline import Timeline
from tests.support.writing import Clock


def test_the_slowest_second_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    line = Timeline()
    for index in range(200):
        clock.now += 0.05
        line.add(0 if 100 <= index < 110 else 10)  # half a second of nothing
    assert line.slowest_second(0.0, 1e9) == pytest.approx(100, abs=21)
    assert line.slowest_second(0.0, 1003.0) == pytest.approx(200, abs=21)
    assert line.slowest_second(2000.0, 3000.0) is None
