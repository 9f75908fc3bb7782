"""Version 1 of the protocol, as ramferry 0.1.0 speaks it: its JSON to that of this version, and back.

WELCOME on control    `output` is `keeps`; no `decode_on_qat`
WELCOME for packets   no `packets`, no `huge_bytes`
OPEN                  no `qat_buffer_bytes`, no `decode_on_qat`
SETTLE                `connections` is `channels`; no `guest_stands`
COMMIT                no `dirty_pages`

No HELLO is followed by a proof, nothing is asked by pages, and no packet is without checksums.
"""

from __future__ import annotations

from typing import Any

from pipeline.errors import BadFrame
from pipeline.transports.tcp.protocol import FrameType

VERSION_1 = 1

OLD_NAMES: dict[FrameType, dict[str, str]] = {
    FrameType.WELCOME: {"output": "keeps"},
    FrameType.SETTLE: {"connections": "channels"},
}

ADDED: dict[FrameType, dict[str, dict[str, Any]]] = {
    FrameType.WELCOME: {"output": {"decode_on_qat": False}, "prealloc_ms": {"packets": 0, "huge_bytes": 0}},
    FrameType.SETTLE: {"round": {"guest_stands": False}},
    FrameType.COMMIT: {"request": {"dirty_pages": None}},
    FrameType.OPEN: {"ram_bytes": {"qat_buffer_bytes": None, "decode_on_qat": False}},
}
"""By type, and by a field that the message has, since there are two kinds of WELCOME: what version 2 added to
it, with what a peer of version 1 means by not saying it."""


def to_version_1(type_: FrameType, body: dict[str, Any]) -> dict[str, Any]:
    """What a peer of version 1 is told."""
    names, added = OLD_NAMES.get(type_, {}), _added(type_)
    return {names.get(name, name): value for name, value in body.items() if name not in added}


def from_version_1(type_: FrameType, body: dict[str, Any]) -> dict[str, Any]:
    """What a peer of version 1 says, for the readers of `messages`, which check it. Raises BadFrame."""
    names = {old: new for new, old in OLD_NAMES.get(type_, {}).items()}
    newer = sorted(set(body) & {*names.values(), *_added(type_)})
    if newer:
        raise BadFrame(f"{newer[0]!r}: not a field of version 1")
    renamed = {names.get(name, name): value for name, value in body.items()}
    for field, added in ADDED.get(type_, {}).items():
        if field in renamed:
            renamed |= added
    return renamed


def _added(type_: FrameType) -> set[str]:
    return {name for added in ADDED.get(type_, {}).values() for name in added}
