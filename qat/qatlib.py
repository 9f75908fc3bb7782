"""Which qatlib a host has, and which GCC built it. libqat has no function that says.

Looked for where packages and builds leave it: pkg-config files of a build in /usr/local, dpkg's status,
pkg-config files of packages, and rpm. Paths are below one root, so that a recorded tree will do.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib")
LOCAL_FOLDERS = ("usr/local/lib", "usr/local/lib64")
LIBRARY = "libqat.so.4"
DPKG_STATUS = "var/lib/dpkg/status"
RPM = ("rpm", "-q", "--queryformat", "%{VERSION}", "qatlib")
RPM_SECONDS = 5.0
GCC = re.compile(rb"GCC: \([^)]*\) (\d+)\.")


@dataclass(frozen=True)
class Qatlib:
    """A release, (year, month) as in 24.09, and how it is written; `gcc` is its compiler's major version.

    None where nothing says so. Distributions strip the compiler's name.
    """

    release: tuple[int, int] | None = None
    version: str = ""
    gcc: int | None = None

    def before(self, year: int, month: int) -> bool:
        """Whether it is known to be older."""
        return self.release is not None and self.release < (year, month)

    @classmethod
    def of(cls, root: Path) -> Qatlib:
        """What is installed below a root folder."""
        version = (
            _pkg_config(root, LOCAL_FOLDERS) or _dpkg(root) or _pkg_config(root, FOLDERS) or _rpm(root) or ""
        )
        numbers = re.match(r"(\d+)\.(\d+)", version)
        release = (int(numbers[1]), int(numbers[2])) if numbers else None
        return cls(release, version if release else "", _gcc(root))


def _pkg_config(root: Path, folders: tuple[str, ...]) -> str:
    for folder in folders:
        for line in _text(root / folder / "pkgconfig/libqat.pc").splitlines():
            if line.startswith("Version:"):
                return line.partition(":")[2].strip()
    return ""


def _dpkg(root: Path) -> str:
    for record in _text(root / DPKG_STATUS).split("\n\n"):
        if (
            not record.lstrip().startswith("Package: libqat4\n")
            or "\nStatus: install ok installed" not in record
        ):
            continue
        found = re.search(r"^Version: (?:\d+:)?([\d.]+)", record, re.MULTILINE)
        return found[1] if found else ""
    return ""


def _rpm(root: Path) -> str:
    if root != Path("/"):
        return ""
    try:
        asked = subprocess.run(RPM, capture_output=True, text=True, timeout=RPM_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip() if asked.returncode == 0 else ""


def _gcc(root: Path) -> int | None:
    for folder in (*LOCAL_FOLDERS, *FOLDERS):
        try:
            said = GCC.findall((root / folder / LIBRARY).read_bytes())
        except OSError:
            continue
        return max(map(int, said)) if said else None
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
