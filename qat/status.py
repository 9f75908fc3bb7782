"""libqatzip's return codes by name, and the exceptions for them.

Values: `qatzip.h` of libqatzip 1.3.1, unchanged in 2.0.
"""

from __future__ import annotations

QZ_OK = 0
QZ_DUPLICATE = 1
QZ_FAIL = -2
QZ_BUF_ERROR = -3
QZ_DATA_ERROR = -4
QZ_NOSW_NO_HW = -101
QZ_NOSW_NO_INST_ATTACH = -103
QZ_NOSW_LOW_MEM = -104

_NAMES = {
    0: "QZ_OK",
    1: "QZ_DUPLICATE",
    2: "QZ_FORCE_SW",
    11: "QZ_NO_HW",
    12: "QZ_NO_MDRV",
    13: "QZ_NO_INST_ATTACH",
    14: "QZ_LOW_MEM",
    15: "QZ_LOW_DEST_MEM",
    16: "QZ_UNSUPPORTED_FMT",
    100: "QZ_NONE",
    -1: "QZ_PARAMS",
    -2: "QZ_FAIL",
    -3: "QZ_BUF_ERROR",
    -4: "QZ_DATA_ERROR",
    -5: "QZ_TIMEOUT",
    -100: "QZ_INTEG",
    -101: "QZ_NOSW_NO_HW",
    -102: "QZ_NOSW_NO_MDRV",
    -103: "QZ_NOSW_NO_INST_ATTACH",
    -104: "QZ_NOSW_LOW_MEM",
    -105: "QZ_NO_SW_AVAIL",
    -116: "QZ_NOSW_UNSUPPORTED_FMT",
    -117: "QZ_POST_PROCESS_ERROR",
    -118: "QZ_METADATA_OVERFLOW",
    -119: "QZ_OUT_OF_RANGE",
    -200: "QZ_NOT_SUPPORTED",
}


def status_name(code: int) -> str:
    """The code's name in qatzip.h; for a code that is not in there, its number."""
    return _NAMES.get(code, f"QZ status {code}")


class QatError(Exception):
    """The base class of what can go wrong with libqatzip."""


class LibraryMissing(QatError):
    """libqatzip was not found, cannot be trusted, cannot be loaded, or lacks a function that is needed.

    `mend` is the command or change that helps, where one is known.
    """

    def __init__(self, message: str, mend: str = "") -> None:
        self.mend = mend
        super().__init__(message)


class QatStatusError(QatError):
    """A libqatzip call did not return QZ_OK but `code`, whose name is `name`."""

    def __init__(self, call: str, code: int) -> None:
        self.call = call
        self.code = code
        self.name = status_name(code)
        super().__init__(f"{call} returned {self.name} ({code})")


class QatLengthError(QatError):
    """A libqatzip call returned QZ_OK, but with lengths that no complete result can have."""
