"""The relay's command line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.cli import relay as relay_command
from pipeline.errors import UsageError
from tests.support.harness import read

SOURCE = ("--listen", "unix:out", "--to", "unix:link")
DESTINATION = ("--accept", "unix:link", "--deliver", "unix:in")


def test_a_side_is_known_by_its_addresses() -> None:
    assert read(relay_command, *SOURCE).options.side == "source"
    assert read(relay_command, *DESTINATION).options.side == "destination"


def test_several_vms_have_names() -> None:
    both = ("--listen", "web=unix:a", "--listen", "db=unix:b", "--to", "unix:link", "--runs", "0")
    assert set(read(relay_command, *both).options.listens) == {"web", "db"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "give --listen and --to"),
        ((*SOURCE, *DESTINATION), "give --listen and --to"),
        (("--listen", "unix:out"), "--to is needed"),
        (("--accept", "unix:link"), "--deliver is needed"),
        (("--listen", "tcp:1", "--to", "unix:link"), "must be unix:PATH"),
        (("--listen", "unix:a", "--listen", "unix:b", "--to", "unix:l"), "needs a name|stands twice"),
        (("--listen", "a=unix:a", "--listen", "a=unix:b", "--to", "unix:l"), "this name stands twice"),
        (("--listen", "a=unix:a", "--listen", "b=unix:a", "--to", "unix:l"), "this path stands twice"),
        (("--listen", "unix:a", "--to", "unix:a"), "name one place"),
        (("--accept", "unix:a", "--deliver", "unix:a"), "name one place"),
        ((*DESTINATION, "--method", "zstd"), "is for the source's relay"),
        ((*DESTINATION, "--max-bandwidth", "1M"), "is for the source's relay"),
        ((*DESTINATION, "--migrate", "--qmp", "x"), "is for the source's relay"),
        ((*SOURCE, "--migrate"), "needs --qmp"),
        ((*SOURCE, "--qmp", "x", "--multifd", "2"), "is for --migrate"),
        ((*SOURCE, "--qmp", "x", "--runs", "0"), "one QEMU's"),
        ((*SOURCE, "--method", "none,zstd"), "name one"),
        ((*SOURCE, "--peer-user", "nobody-of-that-name"), "no such user"),
        ((*SOURCE, "--socket-mode", "999"), "three octal digits"),
        ((*SOURCE, "--connections", "0"), "--connections 0"),
        ((*SOURCE, "--metrics", "192.0.2.1:9"), "loopback"),
        ((*SOURCE, "--metrics", "unix:x"), "HOST:PORT"),
        (("--listen", "unix:out", "--to", "192.0.2.1:7000"), "--tls-dir"),
    ],
)
def test_what_does_not_go_is_refused(arguments: tuple[str, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        read(relay_command, *arguments)


def test_a_folder_keeps_one_result_a_migration(tmp_path: Path) -> None:
    request = read(relay_command, *SOURCE, "--runs", "0", "--json", str(tmp_path))
    assert request.json_folder == tmp_path
    with pytest.raises(UsageError, match="name a folder"):
        read(relay_command, *SOURCE, "--runs", "0", "--json", str(tmp_path / "one"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_an_owner_is_a_user_and_a_group() -> None:
    access = read(relay_command, *SOURCE, "--socket-owner", "root:0", "--socket-mode", "660").options.access
    assert (access.owner, access.mode) == ((0, 0), 0o660)
