"""Every way in which a certificate or a key cannot be used, made with openssl: one line for each."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli import recv as recv_command
from pipeline.cli import send as send_command
from pipeline.errors import UsageError
from pipeline.net.tls import Tls
from tests.support.harness import read
from tests.support.two_hosts import certificates, sent

PAST, FUTURE = "20200101000000Z", "20991231235959Z"


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


def signed(folder: Path, begin: str, end: str) -> None:
    """A client certificate of the folder's authority that is valid from then until then (openssl ca)."""
    openssl(
        *("req", "-new", "-key", folder / "client-key.pem", "-subj", "/CN=lab", "-out", folder / "csr"),
    )
    settings = folder / "settings"
    settings.write_text(
        f"[ca]\ndefault_ca=lab\n[lab]\ndatabase={folder}/index\nnew_certs_dir={folder}\nserial={folder}/serial\n"
        "default_md=sha256\npolicy=any\nx509_extensions=names\n[any]\ncommonName=supplied\n"
        "[names]\nsubjectAltName=DNS:lab\n"
    )
    (folder / "index").write_text("")
    (folder / "serial").write_text("01\n")
    openssl(
        *("ca", "-batch", "-config", settings, "-cert", folder / "ca-cert.pem"),
        *("-keyfile", folder / "ca-key.pem", "-in", folder / "csr", "-out", folder / "client-cert.pem"),
        *("-startdate", begin, "-enddate", end, "-notext"),
    )


def an_old_authority(folder: Path) -> None:
    """Valid for one day that is over: -days takes no past, so its own key signs it by openssl ca."""
    shutil.copy(folder / "ca-key.pem", folder / "client-key.pem")
    signed(folder, "20200101000000Z", "20200102000000Z")
    text = (folder / "client-cert.pem").read_text()
    (folder / "ca-cert.pem").write_text(text)


def encrypted(folder: Path, *how: str) -> None:
    key = folder / "client-key.pem"
    openssl("pkey", "-in", key, "-out", folder / "locked", "-aes256", "-passout", "pass:x", *how)
    (folder / "locked").replace(key)


def damaged(path: Path) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:20], *lines[2:]]) + "\n")


def another_key(folder: Path) -> None:
    shutil.copy(folder / "server-key.pem", folder / "client-key.pem")


def keyed(folder: Path, *key: str) -> None:
    """A client certificate of the folder's authority with another key."""
    openssl("genpkey", *key, "-out", folder / "client-key.pem")
    openssl("pkey", "-in", folder / "client-key.pem", "-pubout", "-out", folder / "public")
    authority = ("-CA", folder / "ca-cert.pem", "-CAkey", folder / "ca-key.pem", "-CAcreateserial")
    openssl("genpkey", "-algorithm", "ed25519", "-out", folder / "any-key")
    openssl("req", "-new", "-key", folder / "any-key", "-subj", "/CN=lab", "-out", folder / "csr")
    openssl(
        *("x509", "-req", "-in", folder / "csr", "-force_pubkey", folder / "public", *authority),
        *("-out", folder / "client-cert.pem"),
    )


def cut_short(path: Path) -> None:
    text = path.read_text()
    path.write_text(text[: len(text) // 2])


def the_servers(folder: Path) -> None:
    for kind in ("cert", "key"):
        shutil.copy(folder / f"server-{kind}.pem", folder / f"client-{kind}.pem")


def swapped(folder: Path) -> None:
    shutil.copy(folder / "client-cert.pem", folder / "client-key.pem")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


WAYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "encrypted": (encrypted, "client-key.pem is encrypted"),
    "encrypted the old way": (
        lambda f: encrypted(f, "-traditional"),
        "client-key.pem is encrypted",
    ),
    "expired": (lambda f: signed(f, PAST, "20200102000000Z"), "client-cert.pem expired 2020-01-02"),
    "not yet valid": (lambda f: signed(f, "20991201000000Z", FUTURE), "not valid before 2099-12-01"),
    "expires after 2050": (lambda f: signed(f, PAST, FUTURE), ""),
    "an authority that expired": (an_old_authority, "ca-cert.pem expired 2020-01-02"),
    "the key of another": (another_key, "client-key.pem is not the key of client-cert.pem"),
    "a key that is a certificate": (swapped, "client-key.pem is not a private key in PEM"),
    "no PEM": (lambda f: (f / "client-cert.pem").write_bytes(os.urandom(500)), "is not a certificate in PEM"),
    "an authority in no PEM": (lambda f: (f / "ca-cert.pem").write_text("x"), "ca-cert.pem is not a certif"),
    "empty": (lambda f: (f / "client-key.pem").write_text(""), "client-key.pem is empty"),
    "blank": (lambda f: (f / "ca-cert.pem").write_text("\n\n"), "ca-cert.pem is empty"),
    "damaged certificate": (lambda f: damaged(f / "client-cert.pem"), "client-cert.pem (is damaged|cannot)"),
    "damaged key": (lambda f: damaged(f / "client-key.pem"), "client-key.pem (is damaged|cannot)"),
    "damaged authority": (lambda f: damaged(f / "ca-cert.pem"), "ca-cert.pem cannot be used"),
    "a certificate cut short": (lambda f: cut_short(f / "client-cert.pem"), "client-cert.pem is cut short"),
    "a key cut short": (lambda f: cut_short(f / "client-key.pem"), "client-key.pem is cut short"),
    "an authority cut short": (lambda f: cut_short(f / "ca-cert.pem"), "ca-cert.pem is cut short"),
    "a key too small": (
        lambda f: keyed(f, "-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:1024"),
        "client-cert.pem has a key that is too small for OpenSSL: make one",
    ),
    "a key that cannot sign": (
        lambda f: keyed(f, "-algorithm", "x25519"),
        "client-cert.pem has a key that cannot sign: make one",
    ),
    "the server's files": (the_servers, "client-cert.pem is not made for a client"),
    "a directory": (lambda f: a_folder(f / "client-cert.pem"), "client-cert.pem is not a regular file"),
    "a pipe": (lambda f: a_pipe(f / "client-key.pem"), "client-key.pem is not a regular file"),
    "missing": (lambda f: (f / "client-key.pem").unlink(), "client-key.pem cannot be read; .* makes one"),
    "open to others": (lambda f: (f / "client-key.pem").chmod(0o640), "chmod 600"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(tmp_path_factory.mktemp("tls") / "good", "lab")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "certs"))


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_cannot_be_used(way: str, folder: Path) -> None:
    harm, line = WAYS[way]
    harm(folder)
    key = folder / "client-key.pem"
    if key.exists() and way != "open to others":
        key.chmod(0o600)
    if not line:
        Tls(str(folder), ()).context("client")
        return
    with pytest.raises(UsageError, match=line) as caught:
        Tls(str(folder), ()).context("client")
    assert str(caught.value).startswith(f"--tls-dir {folder}: ")
    assert "\n" not in str(caught.value)


def test_good_ones_are_good(folder: Path) -> None:
    read(send_command, "--to", "192.0.2.1:1", "--tls-dir", str(folder))
    read(recv_command, "--listen", "192.0.2.1:1", "--tls-dir", str(folder))


def test_nobody_is_asked_for_a_pass_phrase(folder: Path) -> None:
    encrypted(folder)
    ended = sent("192.0.2.1:1", "--size", "16M", "--tls-dir", str(folder), timeout=10)
    assert (ended.code, len(ended.errors)) == (2, 1)
    assert "pass phrase:" not in ended.err + ended.out or "nobody is there" in ended.errors[0]
    assert "Enter" not in ended.err + ended.out
