"""Run a command as on a kernel that lacks Landlock, and seccomp too on request: their system calls answer ENOSYS.

Usage: python without.py landlock|both COMMAND...
"""

import ctypes
import errno
import os
import struct
import sys

LANDLOCK, SECCOMP = (444, 445, 446), {"x86_64": 317, "aarch64": 277}[os.uname().machine]
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2

numbers = [*LANDLOCK, *([SECCOMP] if sys.argv[1] == "both" else [])]
program = [
    (0x20, 0, 0, 0),
    *((0x15, len(numbers) - place, 0, number) for place, number in enumerate(numbers)),
    (0x06, 0, 0, 0x7FFF0000),
    (0x06, 0, 0, 0x00050000 | errno.ENOSYS),
]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
if libc.prctl(_SET_SECCOMP, _FILTER, struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))) != 0:
    raise OSError(ctypes.get_errno(), "seccomp")
os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the test names the command
