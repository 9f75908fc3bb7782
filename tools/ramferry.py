"""The console script `ramferry`: one name for all commands. Each is loaded only when it is called."""

from __future__ import annotations

import importlib
import sys

from pipeline import __version__
from pipeline.cli.main import execute, fill_closed_streams, said
from pipeline.errors import UsageError

COMMANDS = {
    "run": ("pipeline.cli.run", "migrate a guest with both ends on this host, and measure it"),
    "send": ("pipeline.cli.send", "migrate a guest to another host"),
    "recv": ("pipeline.cli.recv", "receive a guest from another host"),
    "relay": ("pipeline.cli.relay", "carry a real VM's migration between two QEMUs"),
    "dirtyrate": ("tools.dirtyrate", "keep a guest running that writes, or measure its dirty curve"),
    "snapshot": ("tools.snapshot", "write the RAM of a running VM to a file"),
    "compare": ("tools.compare.command", "compare methods over links, channels and guests"),
    "bench": ("tools.bench.command", "measure this program beside QEMU and beside each codec"),
    "forecast": ("tools.forecast.command", "say what a migration will take, before it starts"),
    "evacuate": ("tools.evacuate.command", "plan how hosts are emptied of their VMs, and carry it out"),
    "doctor": ("tools.doctor", "say whether this host can compress on Intel QAT"),
    "qat-throughput": ("tools.qat_throughput", "measure a QAT device"),
    "emulator": ("qat.emulator.__main__", "run a command on an emulated QAT device"),
}
"""By name: the module, and what it does in one line."""


def main() -> int:
    """The entry point that the package installs."""
    return dispatch(sys.argv[1:])


def dispatch(arguments: list[str]) -> int:
    """Run the command that the first argument names; the exit code."""
    fill_closed_streams()
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("--help", "-h", "help"):
        return said(_help())
    if name == "--version":
        return said(f"ramferry {__version__}")
    if name not in COMMANDS:
        return said(UsageError(f"{name}: no such command; one of {', '.join(COMMANDS)}"))
    if name == "emulator":
        # `qat` knows nothing of ours, so its command has a main of its own, which ends this process.
        importlib.import_module(COMMANDS[name][0]).end_with(
            rest, f"ramferry {name}", f"ramferry {__version__}"
        )
    return execute(COMMANDS[name][0], rest, f"ramferry {name}")


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: ramferry COMMAND [OPTIONS]",
            "",
            "Live migration of guest RAM through compressing channels, on Intel QAT or on the CPU, measured.",
            "",
            *lines,
            "",
            "ramferry COMMAND --help lists the options of a command; ramferry --version is this version.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
