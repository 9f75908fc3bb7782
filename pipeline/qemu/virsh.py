"""QEMU's monitor where libvirt owns it: each command goes by `virsh qemu-monitor-command`."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from pipeline.errors import HostError
from pipeline.qemu.monitor import REPLY_SECONDS, MonitorError

VIRSH = "virsh"


class VirshMonitor:
    """The monitor of one domain, which libvirt marks as tainted by it (custom-monitor)."""

    def __init__(self, domain: str, uri: str | None) -> None:
        """`uri` is virsh's --connect. Raises HostError where there is no virsh."""
        found = shutil.which(VIRSH)
        if found is None:
            raise HostError(f"--libvirt {domain}: virsh is missing: install libvirt's clients")
        connect = [] if uri is None else ["--connect", uri]
        self._command = [found, "--quiet", *connect, "qemu-monitor-command", "--domain", domain, "--cmd"]

    def run(self, command: str, **arguments: Any) -> Any:
        """As a monitor's. Raises MonitorError."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        text = json.dumps({"execute": command, **({"arguments": named} if named else {})})
        try:
            ended = subprocess.run(
                [*self._command, text],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=REPLY_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise MonitorError(f"virsh says nothing more ({command})") from error
        except OSError as error:
            raise MonitorError(f"virsh cannot be run: {error.strerror}") from error
        if ended.returncode:
            raise MonitorError(_first_line(ended.stderr) or f"virsh ended with {ended.returncode}")
        return _result(command, ended.stdout)

    def capabilities(self) -> dict[str, bool]:
        """As a monitor's. Raises MonitorError."""
        return {one["capability"]: bool(one["state"]) for one in self.run("query-migrate-capabilities")}


def _first_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[0].removeprefix("error: ") if lines else ""


def _result(command: str, output: bytes) -> Any:
    """Of QEMU's answer, as virsh prints it. Raises MonitorError."""
    try:
        answer = json.loads(output)
    except ValueError as error:
        raise MonitorError(f"{command}: virsh's answer is no JSON") from error
    if isinstance(answer, dict) and "return" in answer:
        return answer["return"]
    said = answer.get("error") if isinstance(answer, dict) else None
    desc = said.get("desc") if isinstance(said, dict) else None
    raise MonitorError(f"{command}: {desc or 'virsh gave no answer of QEMU'}")
