"""The release before, 0.1.0, at either end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.harness import ROOT, Run
from tests.support.two_hosts import certificates, proxy, receiver, send, sent

RELEASE = "6147b46"
"""The last commit of 0.1.0, whose protocol has version 1."""

VERSION_2 = "5e5245d"
"""The last commit whose protocol has version 2, without deltas."""

GUEST = ("--size", "32M", "--dirty-rate", "4M", "--json", "-")
PACED = ("--size", "32M", "--dirty-rate", "0", "--method", "zstd", "--max-bandwidth", "8M", "--json", "-")

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """What a command is prefixed with to be that of 0.1.0."""
    return unpacked(RELEASE, tmp_path_factory.mktemp("release-0.1.0"))


@pytest.fixture(scope="module")
def version_2(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The same of version 2."""
    return unpacked(VERSION_2, tmp_path_factory.mktemp("version-2"))


def unpacked(commit: str, folder: Path) -> tuple[str, ...]:
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"the code of {commit} is not here: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return ("env", "-C", str(folder))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return ("--tls-dir", str(certificates(tmp_path_factory.mktemp("tls") / "lab", "127.0.0.1")))


@contextmanager
def old_receiver(prefix: tuple[str, ...], *arguments: str) -> Iterator[tuple[Run, str]]:
    """0.1.0 listening; the run and its address. It knows neither --secret nor a word for plain loopback."""
    running = Run("--listen", "127.0.0.1:0", *arguments, module="pipeline.recv", prefix=prefix)
    try:
        yield running, running.wait_for("waiting for a sender at").split()[-1]
    finally:
        if running.process.poll() is None:
            os.kill(running.process.pid, 2)
        running.end(10)


@pytest.mark.parametrize("method", ["zstd", "qatzip", "none", "auto"])
@pytest.mark.parametrize("secure", [False, True])
def test_to_a_receiver_of_the_release_before(
    old: tuple[str, ...], tls: tuple[str, ...], method: str, secure: bool, tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    with old_receiver(old, "--output", str(output), *(tls if secure else ())) as (_, address):
        ended = sent(address, *GUEST, "--method", method, *(tls if secure else ("--insecure",)))
        assert ended.code == 0, ended.err
        assert ended.result["verified"] is True
        assert ended.result["transport"]["output"] == f"file {output}"
    assert output.stat().st_size == 32 << 20


@pytest.mark.parametrize("method", ["zstd", "qatzip", "none", "auto"])
@pytest.mark.parametrize("secure", [False, True])
def test_from_a_sender_of_the_release_before(
    old: tuple[str, ...], tls: tuple[str, ...], method: str, secure: bool, tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    security = tls if secure else ()
    with receiver("--output", str(output), *(security or ("--insecure",))) as here:
        arguments = ("--to", here.address, *GUEST, "--method", method, *security)
        ended = Run(*arguments, module="pipeline.send", prefix=old).end()
        assert ended.code == 0, ended.err
        assert ended.result["verified"] is True
        assert here.end().code == 0
    assert output.stat().st_size == 32 << 20


def test_cut_connections_of_a_receiver_of_the_release_before(old: tuple[str, ...]) -> None:
    with old_receiver(old) as (_, address), proxy(int(address.rpartition(":")[2])) as network:
        running = send(network.address, *PACED, "--insecure")
        network.wait_for(4, 1 << 18)  # the first was in version 2
        for pipe in network.pipes[:]:
            pipe.cut(reset=True)
        ended = running.end()
        assert ended.code == 0, ended.err
        assert ended.result["verified"] is True
        assert ended.result["transport"]["reconnections"] == 2
        assert len(ended.result["transport"]["control"]["broken"]) == 1


def test_cut_connections_of_a_sender_of_the_release_before(old: tuple[str, ...]) -> None:
    with receiver("--insecure", "--prealloc") as here, proxy(here.port) as network:
        running = Run("--to", network.address, *PACED, module="pipeline.send", prefix=old)
        network.wait_for(3, 1 << 18)
        for pipe in network.pipes[:]:
            pipe.cut(reset=True)
        ended = running.end()
        assert ended.code == 0, ended.err
        assert ended.result["verified"] is True
        assert ended.result["transport"]["reconnections"] == 2


def test_a_secret_is_nothing_for_the_release_before(old: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("0123456789abcdef")
    path.chmod(0o600)
    shared = ("--secret", str(path))
    with old_receiver(old) as (_, address):
        ended = sent(address, *GUEST, *shared)
        assert (ended.code, len(ended.errors)) == (4, 1)
        assert "is ramferry 0.1, which knows no --secret" in ended.errors[0]
    with receiver(*shared) as here:
        refused = Run("--to", here.address, *GUEST, module="pipeline.send", prefix=old).end()
        assert refused.code == 2  # as a refusal was there
        assert "version 1 knows no shared secret, and this receiver has one" in refused.err
        assert sent(here.address, *GUEST, *shared).code == 0


def test_a_receiver_with_a_device_takes_a_sender_that_does_not_cut_for_it(old: tuple[str, ...]) -> None:
    with receiver("--insecure", "--qat-decode", "hardware") as here:
        arguments = ("--to", here.address, *GUEST, "--method", "qatzip")
        ended = Run(*arguments, module="pipeline.send", prefix=old).end()
        assert ended.code == 0, ended.err
        assert ended.result["verified"] is True


DELTAS = ("--size", "32M", "--dirty-rate", "1M", "--write-bytes", "512", "--max-bandwidth", "16M")


def test_to_a_receiver_of_version_2_no_deltas_go(version_2: tuple[str, ...]) -> None:
    running = Run("--listen", "127.0.0.1:0", "--insecure", module="pipeline.recv", prefix=version_2)
    address = running.wait_for("waiting for a sender at").split()[-1]
    ended = sent(address, *DELTAS, "--delta", "16M", "--insecure", "--json", "-")
    assert ended.code == 0, ended.err
    assert ended.result["verified"] is True
    assert ended.result["delta"] is None
    assert running.end(10).code == 0


def test_from_a_sender_of_version_2(version_2: tuple[str, ...]) -> None:
    with receiver("--insecure") as here:
        arguments = ("--to", here.address, *DELTAS, "--insecure", "--json", "-")
        ended = Run(*arguments, module="pipeline.send", prefix=version_2).end()
        assert ended.code == 0, ended.err
        assert ended.result["verified"] is True
        assert here.end().code == 0
