"""Images of real memory: every format comes out as it went in, and what is damaged is refused in a line."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import cramjam
import pytest

from guestmem.images import ImageError, open_source, read_layout
from guestmem.images.source import Truncated
from tests.guestmem.images import files

PAGE = files.PAGE
DATA = files.pages(70)
HOLE = bytes(PAGE * 300)


def snappy(page: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(page))


IMAGES: dict[str, tuple[Callable[[], bytes], bytes]] = {
    "raw": (lambda: DATA, DATA),
    "lime": (lambda: files.lime([(0, DATA[: 9 * PAGE]), (1 << 32, DATA[9 * PAGE :])]), DATA),
    "elf": (
        lambda: files.elf([(0, DATA[: 9 * PAGE], 10 * PAGE), (1 << 32, DATA[9 * PAGE :], 61 * PAGE)]),
        DATA[: 9 * PAGE] + bytes(PAGE) + DATA[9 * PAGE :],
    ),
    "mapped-ram": (
        lambda: files.mapped_ram([("pc.ram", DATA), ("vga", DATA[: 5 * PAGE])]),
        DATA + DATA[: 5 * PAGE],
    ),
    "mapped-ram of libvirt": (lambda: files.libvirt(b"<domain/>" * 50, [("ram", DATA)]), DATA),
    "kdump-zlib": (lambda: files.kdump(DATA, [*range(20), *range(90, 140)]), DATA),
    "kdump-snappy": (lambda: files.kdump(DATA, list(range(70)), snappy, 4), DATA),
    "kdump flattened": (lambda: files.flattened(files.kdump(DATA, list(range(5, 75)))), DATA),
}


def filled(path: Path) -> bytes:
    with open_source(path) as source:
        layout = read_layout(source)
        memory = bytearray(layout.size_bytes)
        layout.fill(memoryview(memory))
        assert sum(one.size_bytes for one in layout.ranges) == layout.size_bytes
        return bytes(memory)


@pytest.mark.parametrize("kind", IMAGES)
def test_every_byte_is_where_it_was(kind: str, tmp_path: Path) -> None:
    make, wanted = IMAGES[kind]
    path = tmp_path / "image"
    path.write_bytes(make())
    assert filled(path) == wanted


def test_ranges_say_where_memory_was(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(files.kdump(DATA, [*range(20), *range(90, 140)]))
    with open_source(path) as source:
        ranges = read_layout(source).ranges
    assert [(one.address, one.size_bytes) for one in ranges] == [(0, 20 * PAGE), (90 * PAGE, 50 * PAGE)]


def test_a_page_that_became_zero_is_zero_whatever_lies_in_the_file(tmp_path: Path) -> None:
    """A live migration to a mapped-ram file leaves stale bytes; the bitmap decides."""
    data = bytearray(files.mapped_ram([("ram", DATA)]))
    at = data.index(b"\x05\x1a") if b"\x05\x1a" in data else 0
    header = data.index((PAGE).to_bytes(8, "big"), at)
    bitmap_at = int.from_bytes(data[header + 8 : header + 16], "big")
    normal = next(n for n in range(70) if any(DATA[n * PAGE : (n + 1) * PAGE]))
    data[bitmap_at + normal // 8] &= ~(1 << normal % 8)
    path = tmp_path / "image"
    path.write_bytes(data)
    assert not any(filled(path)[normal * PAGE : (normal + 1) * PAGE])


def test_raw_memory_may_begin_with_a_program(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(Path(sys.executable).resolve().read_bytes()[: 2 * PAGE].ljust(2 * PAGE, b"x"))
    assert filled(path) == path.read_bytes()


def test_holes_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "image"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 64 << 20)
        os.pwrite(file.fileno(), b"x" * PAGE, 32 << 20)
    places: list[int] = []
    with open_source(path) as source:
        memory = bytearray(64 << 20)
        source.read_into(0, memoryview(memory), places.append)
    assert memory[32 << 20] == ord("x")
    assert len(places) <= 2


@pytest.mark.parametrize("kind", [kind for kind in IMAGES if kind != "raw"])
def test_whatever_is_cut_off_or_changed_is_refused_in_a_line_or_harmless(kind: str, tmp_path: Path) -> None:
    whole, chance, path = IMAGES[kind][0](), random.Random(kind), tmp_path / "image"
    for turn in range(150):
        data = bytearray(whole)
        if turn % 3 == 0:
            del data[chance.randrange(1, len(data)) :]
        else:
            for _ in range(chance.randrange(1, 9)):
                data[chance.randrange(min(len(data), 12_000 if turn % 3 == 1 else len(data)))] = (
                    chance.randrange(256)
                )
        path.write_bytes(data)
        try:
            with open_source(path) as source:
                layout = read_layout(source)
                if layout.size_bytes <= 1 << 30:
                    layout.fill(memoryview(bytearray(layout.size_bytes)))
        except (ImageError, Truncated) as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (files.mapped_ram([("ram", DATA)], named=False), "without mapped-ram"),
        (files.libvirt(b"<x/>", [("ram", DATA)], format_=5), "compressed by zstd"),
        (files.libvirt(b"<x/>", [("ram", DATA)], magic=b"LibvirtQemudPart"), "never finished"),
        (files.lime([(0, DATA[: PAGE + 1])]), "not a number of pages"),
        (files.elf([]), "no guest RAM"),
        (files.lime([(0, DATA)])[:-1], "truncated"),
        (files.kdump(DATA, list(range(70)))[: PAGE * 6], "truncated"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x04\0" + bytes(100), "damaged|no guest RAM"),
    ],
)
def test_what_cannot_be_read_says_why(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=said):
        filled(path)
