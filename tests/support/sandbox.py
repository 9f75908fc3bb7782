"""`python -m tests.support.sandbox ERRNO CALL,CALL -- COMMAND`: run a command with system calls refused.

A seccomp filter (seccomp(2), linux/filter.h) as a container's profile has one. x86_64 only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

CALLS = {"madvise": 28, "sched_setscheduler": 144, "sched_getaffinity": 204,
         "membarrier": 324, "pidfd_send_signal": 424, "pidfd_open": 434}  # fmt: skip
"""Numbers of x86_64 (arch/x86/entry/syscalls/syscall_64.tbl)."""

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD_NUMBER, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def refuse(calls: list[str], number: int) -> None:
    """From now on the kernel answers so to these calls, in this process and its children."""
    code = [struct.pack("HBBI", LOAD_NUMBER, 0, 0, 0)]
    for call in calls:
        code.append(struct.pack("HBBI", JUMP_EQUAL, 0, 1, CALLS[call]))
        code.append(struct.pack("HBBI", RETURN, 0, 0, ERRNO | number))
    code.append(struct.pack("HBBI", RETURN, 0, 0, ALLOW))
    text = ctypes.create_string_buffer(b"".join(code))
    program = Program(len(code), ctypes.cast(text, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "no seccomp filter can be set here")


if __name__ == "__main__":
    refuse(sys.argv[2].split(","), getattr(errno, sys.argv[1]))
    os.execvp(sys.argv[4], sys.argv[4:])
