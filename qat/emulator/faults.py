"""The faults that an emulated device can have."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = {
    "lost": "the device is lost at request N: this and all later ones fail, and no process can attach",
    "hang": "request N is never answered",
    "hang-all": "request N and all later ones are never answered",
    "busy": "the first N requests find no free instance",
    "corrupt": "every Nth answer has a wrong byte",
    "short": "every Nth answer says QZ_OK, but not all of the input was taken",
    "long": "every Nth answer says QZ_OK, but with an impossible length",
    "fail": "every Nth request fails (QZ_FAIL)",
    "low-memory": "attaching fails for lack of memory (QZ_NOSW_LOW_MEM)",
    "no-hardware": "attaching finds no device (QZ_NOSW_NO_HW)",
}


@dataclass(frozen=True)
class Fault:
    """One kind of fault, with its number N (1 for kinds without one)."""

    kind: str = ""
    number: int = 1

    def strikes(self, request: int) -> bool:
        """Whether it affects request number `request`, counted from 1 over all processes."""
        if self.kind in ("lost", "hang-all"):
            return request >= self.number
        if self.kind == "hang":
            return request == self.number
        if self.kind == "busy":
            return request <= self.number
        return self.kind in ("corrupt", "short", "long", "fail") and request % self.number == 0


def parse_fault(text: str) -> Fault:
    """Parse `KIND` or `KIND:N`. Raises ValueError, whose message lists the kinds."""
    kind, _, number = text.partition(":")
    if kind not in KINDS:
        raise ValueError(f"must be one of {', '.join(KINDS)}, most with :N")
    if number and (not number.isdigit() or int(number) < 1):
        raise ValueError(f"{number!r} is not a number of 1 or more")
    return Fault(kind, int(number or 1))
