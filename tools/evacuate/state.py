"""How far a plan was carried out, in a file beside it: written whole after every VM, read when it goes on."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.report.files import save_text
from tools.evacuate.plan_file import Plan

SCHEMA_VERSION = 1


@contextmanager
def only_one(plan_path: Path) -> Iterator[None]:
    """Nobody else carries this plan out meanwhile (flock(2): gone with the process, however it ends). Raises
    UsageError where somebody does."""
    with plan_path.open("rb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"plan {plan_path}: another evacuation carries it out; wait for its end, or stop it"
            ) from error
        except OSError as error:
            raise UsageError(f"plan {plan_path}: cannot be locked ({error.strerror})") from error
        yield


def digest_of(path: Path) -> str:
    """Of the plan's text. Raises UsageError."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"plan {path}: {error.strerror}") from error


@dataclass
class State:
    """VMs that have moved, and where to."""

    path: Path
    digest: str
    moved: dict[str, str] = field(default_factory=dict)

    def save(self) -> None:
        """Raises UsageError."""
        document = {"schema_version": SCHEMA_VERSION, "plan_sha256": self.digest, "moved": self.moved}
        try:
            save_text(json.dumps(document, indent=2) + "\n", self.path)
        except OSError as error:
            raise UsageError(f"--state {self.path}: {error.strerror}") from error

    def rest_of(self, plan: Plan) -> Plan:
        """What is still to be moved, with those that have moved in their new places."""
        settled = tuple((vm, self.moved[vm.name]) for vm in plan.vms if vm.name in self.moved)
        return replace(plan, vms=tuple(vm for vm in plan.vms if vm.name not in self.moved), settled=settled)


def read_state(path: Path, plan_path: Path, plan: Plan) -> State:
    """A new one where there is no file. Raises UsageError for a file that is no state of this plan."""
    digest = digest_of(plan_path)
    if not path.exists():
        return State(path, digest)
    try:
        found: Any = json.loads(path.read_text())
        same, moved = found["plan_sha256"] == digest, dict(found["moved"])
        fits = all(moved[name] in plan.hosts for name in moved)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--state {path}: is no state of an evacuation; name another file") from error
    if not same or not fits:
        raise UsageError(f"--state {path}: is of another plan, or of this one before it was changed")
    return State(path, digest, moved)
