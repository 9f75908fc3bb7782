"""What an emulated device does wrong, on demand."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = {
    "lost": "the device is lost at request N: it and all after it fail, nobody can attach any more",
    "hang": "request N is never answered",
    "hang-all": "no request from N on is answered",
    "busy": "the first N requests find no free instance",
    "corrupt": "every Nth answer has a wrong byte",
    "short": "every Nth answer says QZ_OK but took less than all of the input",
    "long": "every Nth answer says QZ_OK with an impossible length",
    "fail": "every Nth request fails (QZ_FAIL)",
    "low-memory": "attaching fails for want of memory (QZ_NOSW_LOW_MEM)",
    "no-hardware": "attaching finds no device (QZ_NOSW_NO_HW)",
}


@dataclass(frozen=True)
class Fault:
    """One kind, with its number (1 where the kind takes none)."""

    kind: str = ""
    number: int = 1

    def strikes(self, request: int) -> bool:
        """Whether request number `request` (from 1, over all processes) is struck."""
        if self.kind in ("lost", "hang-all"):
            return request >= self.number
        if self.kind == "hang":
            return request == self.number
        if self.kind == "busy":
            return request <= self.number
        return self.kind in ("corrupt", "short", "long", "fail") and request % self.number == 0


def parse_fault(text: str) -> Fault:
    """`KIND` or `KIND:N`. Raises ValueError with the kinds there are."""
    kind, _, number = text.partition(":")
    if kind not in KINDS:
        raise ValueError(f"must be one of {', '.join(KINDS)}, most with :N")
    if number and (not number.isdigit() or int(number) < 1):
        raise ValueError(f"{number!r} is not a number from 1")
    return Fault(kind, int(number or 1))
