"""A rack of network namespaces: equal parts of the uplink, and the rack emptied as planned."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import Run, assert_clean, leftovers
from tests.support.network import why_not
from tools.fleet.namespaces import Place, rack

pytest.importorskip("simpy")
pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not()), pytest.mark.long]

MBIT, SECONDS = 200, 4.0
TAKE = """
import socket, sys, time
host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
connection, _ = socket.create_server((host, port)).accept()
time.sleep(1)
count, until = 0, time.monotonic() + seconds
while time.monotonic() < until:
    count += len(connection.recv(1 << 18))
print(count)
"""
GIVE = """
import socket, sys, time
for _ in range(200):
    try:
        out = socket.create_connection((sys.argv[1], int(sys.argv[2])))
        break
    except OSError:
        time.sleep(0.02)
try:
    while True:
        out.sendall(bytes(1 << 16))
except OSError:
    pass
"""


def python(place: Place, code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*place.prefix, sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True
    )


def test_migrations_share_the_uplink_equally_however_many_connections_they_have() -> None:
    with rack(2, 2, MBIT) as made:
        pairs = [
            *((made.sources[0], made.takers[0], 7100), (made.sources[0], made.takers[1], 7100)),
            *((made.sources[1], made.takers[0], 7101), (made.sources[1], made.takers[0], 7102)),
        ]
        takers = [python(there, TAKE, there.address, str(port), str(SECONDS)) for _, there, port in pairs]
        givers = [python(here, GIVE, there.address, str(port)) for here, there, port in pairs]
        carried = [int(process.communicate(timeout=60)[0]) / SECONDS for process in takers]
        for process in givers:
            process.communicate(timeout=60)
    assert sum(carried) == pytest.approx(MBIT * 125_000, rel=0.15)
    assert max(carried) < 1.3 * min(carried)


def test_a_rack_is_emptied_and_scored(tmp_path: Path) -> None:
    before = leftovers()
    names = set(socket.if_nameindex())
    running = Run(str(tmp_path), "--guests", "3", "--sources", "2", module="tools.fleet.rack")
    ended = running.end(150)
    assert ended.code == 0, ended.err
    assert_clean(running.session, before)
    assert set(socket.if_nameindex()) == names
    found = json.loads((tmp_path / "executed.json").read_text())["execution"]
    assert (found["moved"], found["left"]) == (3, [])
    assert found["total_seconds"] > 0
