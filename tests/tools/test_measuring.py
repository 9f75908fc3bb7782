"""Runs that the measuring tools start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.measuring.trial import run_ours


def test_a_run_is_of_this_project_wherever_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("guestmem", "qat", "pipeline", "tools"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('code of the working directory')")
    monkeypatch.chdir(tmp_path)
    assert run_ours(["--size", "8M", "--dirty-rate", "0"]).result["status"] == "completed"
