"""Versions 1 and 2 of the protocol: their JSON to that of this version, and back.

Version 2 has no deltas:

OPEN                  no `deltas`

Version 1, as ramferry 0.1.0 speaks it, has besides:

WELCOME on control    `output` is `keeps`; no `decode_on_qat`
WELCOME for packets   no `packets`, no `huge_bytes`
OPEN                  no `qat_buffer_bytes`, no `decode_on_qat`
SETTLE                `connections` is `channels`; no `guest_stands`
COMMIT                no `dirty_pages`

In version 1 no HELLO is followed by a proof, nothing is asked by pages, and no packet is without checksums.
"""

from __future__ import annotations

from typing import Any

from pipeline.errors import BadFrame
from pipeline.transports.tcp.protocol import FrameType

VERSION_1, VERSION_2 = 1, 2

OLD_NAMES: dict[FrameType, dict[str, str]] = {
    FrameType.WELCOME: {"output": "keeps"},
    FrameType.SETTLE: {"connections": "channels"},
}
"""What version 1 calls it."""

Added = dict[FrameType, dict[str, dict[str, Any]]]

ADDED_BY_2: Added = {
    FrameType.WELCOME: {"output": {"decode_on_qat": False}, "prealloc_ms": {"packets": 0, "huge_bytes": 0}},
    FrameType.SETTLE: {"round": {"guest_stands": False}},
    FrameType.COMMIT: {"request": {"dirty_pages": None}},
    FrameType.OPEN: {"ram_bytes": {"qat_buffer_bytes": None, "decode_on_qat": False}},
}
ADDED_BY_3: Added = {FrameType.OPEN: {"ram_bytes": {"deltas": False}}}
"""By type, and by a field that the message has, since there are two kinds of WELCOME: what a version added to
it, with what a peer of the one before means by not saying it."""


def to_older(version: int, type_: FrameType, body: dict[str, Any]) -> dict[str, Any]:
    """What a peer of an older version is told."""
    names, newer = _names(version, type_), _newer(version, type_)
    return {names.get(name, name): value for name, value in body.items() if name not in newer}


def from_older(version: int, type_: FrameType, body: dict[str, Any]) -> dict[str, Any]:
    """What a peer of an older version says, for the readers of `messages`, which check it. Raises
    BadFrame."""
    names = {old: new for new, old in _names(version, type_).items()}
    newer = sorted(set(body) & {*names.values(), *_newer(version, type_)})
    if newer:
        raise BadFrame(f"{newer[0]!r}: not a field of version {version}")
    renamed = {names.get(name, name): value for name, value in body.items()}
    for added in _added(version):
        for field, values in added.get(type_, {}).items():
            if field in renamed:
                renamed |= values
    return renamed


def _names(version: int, type_: FrameType) -> dict[str, str]:
    return OLD_NAMES.get(type_, {}) if version == VERSION_1 else {}


def _added(version: int) -> tuple[Added, ...]:
    return (ADDED_BY_2, ADDED_BY_3) if version == VERSION_1 else (ADDED_BY_3,)


def _newer(version: int, type_: FrameType) -> set[str]:
    return {name for added in _added(version) for values in added.get(type_, {}).values() for name in values}
