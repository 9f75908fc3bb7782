from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import HostError
from tests.support.fake_device import build
from tests.support.rig import close_rigs
from tools.qemu.guest.machine import guest_folder
from tools.qemu.peer import find_qemu


@pytest.fixture(autouse=True)
def _close_rigs() -> Iterator[None]:
    yield
    close_rigs()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what only waits, but in CI."""
    if os.environ.get("FERRY_LONG"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="a long test: FERRY_LONG=1 runs it"))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder of files that compress about as memory does."""
    folder = tmp_path_factory.mktemp("corpus")
    source = Path(os.__file__).parent
    text = b"".join(path.read_bytes() for path in sorted(source.glob("*.py"))[:60])
    (folder / "text").write_bytes(text[: 1 << 20])
    (folder / "noise").write_bytes(random.Random(1).randbytes(70_001))
    (folder / "sub").mkdir()
    (folder / "sub" / "sparse").write_bytes(bytes(range(256)) * 40 + bytes(9000))
    return folder


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that does not compress."""
    path = tmp_path_factory.mktemp("noise") / "noise"
    path.write_bytes(random.Random(2).randbytes(4 << 20))
    return path


@pytest.fixture(scope="session")
def live_guest_here() -> None:
    """Skips where there is no QEMU or no live guest; in CI that is a failure."""
    try:
        find_qemu()
        guest_folder()
    except HostError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A libqatzip 1.3 whose device is zlib."""
    return build(tmp_path_factory.mktemp("device"))


@pytest.fixture(scope="session")
def device_12(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without what 1.2 does not have."""
    return build(tmp_path_factory.mktemp("device12"), "-DV12")
