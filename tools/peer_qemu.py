"""`python -m tools.peer_qemu`: moved to `tools.qemu.peer`; this name is kept for one version."""

from __future__ import annotations

import sys

from pipeline.cli.main import execute

if __name__ == "__main__":
    print("tools.peer_qemu is now tools.qemu.peer", file=sys.stderr)
    sys.exit(execute("tools.qemu.peer", sys.argv[1:]))
