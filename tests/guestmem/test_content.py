from __future__ import annotations

from pathlib import Path

import pytest

from guestmem import content
from guestmem.content import Content, Corpus, Image, ImageChanged, files_under, python_files
from guestmem.images import source
from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam

MIB = 1 << 20


def test_a_corpus_is_repeated_over_the_filled_part(corpus: Path) -> None:
    ram = GuestRam.create(5 * MIB, "test")
    paths = files_under(corpus)
    assert [path.name for path in paths] == ["noise", "sparse", "text"]
    Corpus(corpus, 0.5).fill(ram)
    data = b"".join(path.read_bytes() for path in paths)
    filled = int(ram.pages * 0.5) * PAGE_BYTES
    assert bytes(ram.memory[:filled]) == (data * 4)[:filled]
    assert not any(ram.memory[filled:])


def test_an_image_is_the_ram(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(bytes(range(256)) * 4096)
    ram = GuestRam.create(MIB, "test")
    Image(path).fill(ram)
    assert bytes(ram.memory) == path.read_bytes()
    short = GuestRam.create(2 * MIB, "test")
    with pytest.raises(ImageChanged, match="fewer"):
        Image(path).fill(short)


def test_an_image_that_is_written_meanwhile_is_refused(tmp_path: Path) -> None:
    """Its end was looked at before; what was added since would be missing without a word."""
    path = tmp_path / "ram"
    path.write_bytes(bytes(MIB + 4096))
    with pytest.raises(ImageChanged, match="had 1048576 bytes and has 1052672 now: it is being written"):
        Image(path).fill(GuestRam.create(MIB, "test"))


def test_an_image_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(bytes(range(256)) * 4096)

    def grow(share: float) -> None:
        with path.open("ab") as file:
            file.write(bytes(4096))

    with pytest.raises(ImageChanged, match="it is being written"):
        Image(path).fill(GuestRam.create(MIB, "test"), grow)


def test_python_has_a_corpus_of_both_kinds() -> None:
    paths = python_files()
    assert sum(path.stat().st_size for path in paths) > 4 * MIB
    assert {path.suffix for path in paths} >= {".py"}


@pytest.mark.parametrize("filled", [0.0, 1.0])
def test_the_guest_writes_real_content(corpus: Path, filled: float) -> None:
    ram = GuestRam.create(4 * MIB, "test")
    what = Corpus(corpus, filled)
    what.fill(ram)
    pool = what.pool(ram)
    assert len({page.tobytes() for page in pool}) > 100


@pytest.mark.parametrize("kind", ["corpus", "image"])
def test_filling_tells_how_far_it_is(
    kind: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "CHUNK_BYTES", 300_000)
    monkeypatch.setattr(source, "CHUNK_BYTES", 300_000)
    image = tmp_path / "ram"
    image.write_bytes(bytes(range(256)) * 5 * 4096)
    what: Content = Corpus(corpus, 0.9) if kind == "corpus" else Image(image)
    ram, same = GuestRam.create(5 * MIB, "test"), GuestRam.create(5 * MIB, "test")
    shares: list[float] = []
    what.fill(ram, shares.append)
    assert shares == sorted(shares)
    assert len(shares) > 10
    assert shares[-1] == 1
    monkeypatch.undo()
    what.fill(same)
    assert ram.memory == same.memory
