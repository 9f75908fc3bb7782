"""Libraries that are built or unpacked for a user: which are loaded, and what is left of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qat.emulator import build
from qat.emulator.build import library_name
from tests.support.fake_device import compiler
from tests.support.harness import ROOT

TIMEOUT_SECONDS = 30
NOBODY = 65534
SAY_PATH = ("printenv", "QATZIP_LIBRARY")
LOAD = "import ctypes, os; ctypes.CDLL(os.environ['QATZIP_LIBRARY'])"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="plays another user: needs root")


class User:
    """A user's environment: a cache folder or a home of its own, and a folder for temporary files."""

    def __init__(self, base: Path) -> None:
        self.home, self.temporary, self.loaded = base / "home", base / "tmp", base / "loaded"
        self.home.mkdir(0o700)
        self.temporary.mkdir(0o700)
        self.environment = {
            "PATH": os.environ["PATH"],
            "TMPDIR": str(self.temporary),
            "HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
        }

    @property
    def cache(self) -> Path:
        return self.home / ".cache" / "ramferry"

    def emulator(self, *command: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, sys.executable, "-m", "qat.emulator", "--", *command],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )

    def plant(self, target: Path) -> None:
        """A library that leaves a trace when it is loaded."""
        source = self.temporary / "planted.c"
        trace = f'__attribute__((constructor)) static void f(void) {{ creat("{self.loaded}", 0600); }}'
        source.write_text(f"#include <fcntl.h>\n{trace}\n")
        subprocess.run([compiler(), "-shared", "-fPIC", "-o", target, source], check=True)
        source.unlink()
        target.chmod(0o700)


@pytest.fixture
def user(tmp_path: Path) -> User:
    compiler()
    return User(tmp_path)


def test_the_emulator_is_built_once_into_the_users_cache(user: User) -> None:
    for _ in range(2):
        assert user.emulator(*SAY_PATH).stdout.strip() == str(user.cache / library_name())
    built = user.cache / library_name()
    assert list(user.cache.iterdir()) == [built]
    before = built.stat().st_mtime_ns
    user.environment["XDG_CACHE_HOME"] = "not/absolute"
    assert user.emulator(*SAY_PATH).returncode == 0
    assert built.stat().st_mtime_ns == before
    assert list(user.temporary.iterdir()) == []


def test_another_source_is_another_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = library_name()
    changed = tmp_path / "libqatzip.c"
    changed.write_bytes(build.SOURCE.read_bytes() + b"\n")
    os.utime(changed, (0, 0))
    monkeypatch.setattr(build, "SOURCE", changed)
    assert library_name() != before
    monkeypatch.undo()
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-g"))
    assert library_name() != before


@root_only
def test_a_library_planted_by_another_user_is_never_loaded(user: User) -> None:
    shared = user.home.parent / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    planted = shared / "ramferry" / library_name()
    planted.parent.mkdir(0o755)
    user.plant(planted)
    user.environment["XDG_CACHE_HOME"] = str(shared)
    assert user.emulator(sys.executable, "-c", LOAD).returncode == 0
    assert user.loaded.exists(), "the planted library must leave a trace when it is loaded"
    user.loaded.unlink()
    for theirs in ((planted, planted.parent), (planted,), (planted.parent,)):
        for path in (planted, planted.parent):
            os.chown(path, *((NOBODY, NOBODY) if path in theirs else (0, 0)))
        ended = user.emulator(sys.executable, "-c", LOAD)
        assert ended.returncode == 2
        assert "belongs to" in ended.stderr
        assert ended.stderr.count("\n") == 1
    assert not user.loaded.exists()


@pytest.mark.parametrize("how", ["symlink", "group-writable", "writable file", "writable ancestor"])
def test_a_folder_that_is_not_private_is_refused(user: User, how: str) -> None:
    user.cache.mkdir(0o700, parents=True)
    planted = user.cache / library_name()
    user.plant(planted)
    if how == "symlink":
        user.cache.rename(user.home / "theirs")
        user.cache.symlink_to(user.home / "theirs")
    else:
        opened = {"group-writable": user.cache, "writable file": planted, "writable ancestor": user.home}
        opened[how].chmod(0o770)
    ended = user.emulator(sys.executable, "-c", LOAD)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: nothing is loaded from /")
    assert ended.stderr.count("\n") == 1
    assert not user.loaded.exists()


@pytest.mark.parametrize("home", [None, "/nonexistent", "relative"])
def test_without_a_home_a_temporary_library_is_used_and_removed(user: User, home: str | None) -> None:
    del user.environment["HOME"]
    if home is not None:
        user.environment["HOME"] = home
    ended = user.emulator(sys.executable, "-c", f"{LOAD}; print(os.environ['QATZIP_LIBRARY'])")
    assert ended.returncode == 0, ended.stderr
    path = Path(ended.stdout.strip())
    assert path.parent.parent == user.temporary
    assert list(user.temporary.iterdir()) == []
    assert not Path("/nonexistent").exists()


@pytest.fixture
def read_only_home(user: User) -> Iterator[tuple[str, ...]]:
    """What a command is started with so that the user's home is read-only for it."""
    if os.geteuid() != 0:
        user.home.chmod(0o500)
        yield ()
        user.home.chmod(0o700)
        return
    mount = f"mount --bind {user.home} {user.home} && mount -o remount,bind,ro {user.home}"
    prefix = ("unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("root may not mount here")
    yield prefix


def test_with_a_read_only_home_a_temporary_library_is_used(
    user: User, read_only_home: tuple[str, ...]
) -> None:
    ended = user.emulator(*SAY_PATH, prefix=read_only_home)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(str(user.temporary))
    assert list(user.home.iterdir()) == list(user.temporary.iterdir()) == []


def test_what_is_built_already_is_used_from_a_read_only_home(
    user: User, read_only_home: tuple[str, ...]
) -> None:
    if not read_only_home:
        user.home.chmod(0o700)
    user.emulator("true")
    if not read_only_home:
        user.home.chmod(0o500)
    assert user.emulator(*SAY_PATH, prefix=read_only_home).stdout.startswith(str(user.cache))


def test_no_folder_at_all_is_one_line(user: User) -> None:
    user.environment |= {"HOME": "/nonexistent"}
    code = (
        "import sys, tempfile\n"
        "def none(**_): raise FileNotFoundError(2, 'no usable temporary directory')\n"
        "tempfile.TemporaryDirectory = none\n"
        "from qat.emulator.__main__ import main\n"
        "sys.exit(main(['--', 'true']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=user.environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "XDG_CACHE_HOME or TMPDIR" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [(), ("sh", "-c", "echo started; exec sleep 60")])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_emulator_and_removes_its_library(
    user: User, number: signal.Signals, command: tuple[str, ...]
) -> None:
    user.environment["HOME"] = "/nonexistent"
    process = subprocess.Popen(
        [sys.executable, "-m", "qat.emulator", *(("--", *command) if command else ())],
        env=user.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    (folder,) = user.temporary.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == (128 + number if command else 130)
    assert list(user.temporary.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_under_nohup_a_hangup_changes_nothing(user: User) -> None:
    process = subprocess.Popen(
        ["nohup", sys.executable, "-m", "qat.emulator"],
        env=user.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.terminate()
    process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 130


@pytest.fixture
def installed(user: User, tmp_path: Path) -> Path:
    """`qat` as an installed package has it: no pyproject.toml beside it."""
    site = tmp_path / "site-packages"
    shutil.copytree(ROOT / "qat", site / "qat")
    shutil.copytree(ROOT / "tools", site / "tools", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    user.environment["PYTHONPATH"] = str(site)
    return site


LOAD_UNPACKED = """
import qat.library
qat.library.SONAME = "libplanted.so.3"
from qat.status import LibraryMissing
try:
    print(qat.library.load().path)
except LibraryMissing as error:
    print(error.mend or "no mend", "|", error)
"""


def load_unpacked(user: User) -> str:
    command = [sys.executable, "-c", LOAD_UNPACKED]
    ended = subprocess.run(
        command, env=user.environment, cwd="/", capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_an_installed_package_looks_in_the_users_cache(user: User, installed: Path) -> None:
    unpacked = user.cache / "qatzip"
    unpacked.mkdir(0o700, parents=True)
    user.plant(unpacked / "libplanted.so.3.1")
    (unpacked / "libplanted.so.3").symlink_to("libplanted.so.3.1")
    assert "is not a usable libqatzip" in load_unpacked(user)
    assert user.loaded.exists()


@pytest.mark.parametrize("opened", ["qatzip", "qatzip/libplanted.so.3", "qatzip/libqat.so.4", "."])
def test_an_unpacked_library_that_others_can_write_is_not_loaded(
    user: User, installed: Path, opened: str
) -> None:
    (user.cache / "qatzip").mkdir(0o700, parents=True)
    user.plant(user.cache / "qatzip" / "libplanted.so.3")
    user.plant(user.cache / "qatzip" / "libqat.so.4")
    (user.cache / opened).chmod(0o770)
    said = load_unpacked(user)
    assert "others can write to" in said
    assert "XDG_CACHE_HOME" in said.partition("|")[0]
    assert not user.loaded.exists()


def test_the_script_of_an_installed_package_is_named_with_its_path(user: User, installed: Path) -> None:
    script = installed / "tools" / "get_qatzip.sh"
    assert load_unpacked(user).startswith(f"sh {script} |")
    del user.environment["HOME"]
    assert load_unpacked(user).startswith(f"sh {script} |")


@pytest.mark.parametrize("home", ["", "/nonexistent"])
def test_the_script_of_an_installed_package_needs_a_home(user: User, installed: Path, home: str) -> None:
    # A user without one gets no further than a system that has the library, or is none of Debian's.
    environment = {**user.environment, "HOME": home}
    script = installed / "tools" / "get_qatzip.sh"
    ended = subprocess.run(
        ["sh", "-x", script], env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    if "unpack_from_debian_13" not in ended.stderr:
        pytest.skip("nothing would be unpacked on this system")
    assert ended.returncode == 1
    assert "set XDG_CACHE_HOME to a folder of your own" in ended.stderr
    assert not Path("/nonexistent").exists()
