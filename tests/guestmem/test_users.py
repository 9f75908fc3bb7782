from __future__ import annotations

import os
import subprocess
import sys

import pytest

from guestmem import users
from guestmem.users import is_nameless, is_trusted
from tests.support.harness import ROOT

OTHER = 4242


def test_only_this_user_and_root_are_trusted() -> None:
    assert is_trusted(os.geteuid()) and is_trusted(0)
    assert not is_trusted(OTHER)


def test_where_every_user_has_a_number_nobody_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = int(users.OVERFLOW_UID_FILE.read_text())
    if users.UID_MAP_FILE.read_text().split() != users.ALL_USERS.split():
        pytest.skip("runs in a user namespace, where the overflow uid is everybody's")
    monkeypatch.setattr(os, "geteuid", lambda: nobody)
    assert is_trusted(nobody) and not is_nameless(nobody)


def test_in_a_user_namespace_without_a_map_nobody_is_trusted() -> None:
    look = "import os; from guestmem.users import is_trusted; print(is_trusted(os.geteuid()))"
    command = ["unshare", "--user", sys.executable, "-c", look]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    if "unshare failed" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    assert done.stdout == "False\n", done.stderr
