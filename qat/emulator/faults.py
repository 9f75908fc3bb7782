"""The faults that an emulated device can have."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = {
    "lost": "the device is lost at call N: this and all later ones fail, and no process can attach",
    "hang": "call N is never answered",
    "hang-all": "call N and all later ones are never answered",
    "busy": "the first N calls find no free instance",
    "corrupt": "every Nth answer has a wrong byte",
    "short": "every Nth answer says QZ_OK, but not all of the input was taken",
    "long": "every Nth answer says QZ_OK, but with an impossible length",
    "fail": "every Nth call fails (QZ_FAIL)",
    "low-memory": "attaching fails for lack of memory (QZ_NOSW_LOW_MEM)",
    "no-hardware": "attaching finds no device (QZ_NOSW_NO_HW)",
}


@dataclass(frozen=True)
class Fault:
    """One kind of fault, with its number N (1 for kinds without one)."""

    kind: str = ""
    number: int = 1

    def strikes(self, call: int) -> bool:
        """Whether it affects call number `call`, counted from 1 over all processes."""
        if self.kind in ("lost", "hang-all"):
            return call >= self.number
        if self.kind == "hang":
            return call == self.number
        if self.kind == "busy":
            return call <= self.number
        return self.kind in ("corrupt", "short", "long", "fail") and call % self.number == 0


def parse_fault(text: str) -> Fault:
    """Parse `KIND` or `KIND:N`. Raises ValueError, whose message lists the kinds."""
    kind, _, number = text.partition(":")
    if kind not in KINDS:
        raise ValueError(f"must be one of {', '.join(KINDS)}, most with :N")
    if number and (not number.isdigit() or int(number) < 1):
        raise ValueError(f"{number!r} is not a number of 1 or more")
    return Fault(kind, int(number or 1))
