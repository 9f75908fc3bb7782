"""A libqatzip of our own in which zlib plays the device, built for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.harness import ROOT


def compiler() -> str:
    """The C compiler; without one the test skips, and fails in CI."""
    found = shutil.which("cc") or shutil.which("gcc")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs a C compiler")
        pytest.skip("no C compiler to build the device")
    return found


def build(folder: Path, *flags: str) -> Path:
    target = folder / "libqatzip.so.3"
    subprocess.run(
        [
            compiler(),
            "-shared",
            "-fPIC",
            "-O1",
            *flags,
            "-o",
            target,
            ROOT / "tests/support/fake_qatzip.c",
            "-l:libz.so.1",
        ],
        check=True,
    )
    return target


def with_device(library: Path, mode: str = "ok") -> dict[str, str]:
    return {"QATZIP_LIBRARY": str(library), "FAKE_QAT": mode}
