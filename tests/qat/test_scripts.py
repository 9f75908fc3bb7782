"""The name of a script in a message is one that can be typed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from qat.scripts import shipped_script
from tests.support.harness import ROOT


def test_in_the_root_of_a_clone_it_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert shipped_script("get_qatzip.sh") == "tools/get_qatzip.sh"


def test_elsewhere_it_is_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "make_certs.sh").touch()
    monkeypatch.chdir(tmp_path)
    command = shipped_script("make_certs.sh")
    assert command == f"sh {ROOT}/tools/make_certs.sh"
    assert "usage:" in subprocess.run(command, shell=True, capture_output=True, text=True, check=False).stderr
