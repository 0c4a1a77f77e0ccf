"""Seccomp, Linux's filter of system calls: <https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html>.

A library that computes opens no socket, so that refusing them costs nothing, and needs no privilege: a network
namespace would, and many machines grant none.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys

_MACHINES = {
    # The machine's own number in <linux/audit.h>, the system call of seccomp, and of each call that is refused:
    # socket, ptrace, process_vm_readv, process_vm_writev, setns, unshare, bpf, perf_event_open, userfaultfd, keyctl,
    # add_key, request_key.
    "x86_64": (0xC000003E, 317, (41, 101, 310, 311, 308, 272, 321, 298, 323, 250, 248, 249)),
    "aarch64": (0xC00000B7, 277, (198, 117, 270, 271, 268, 97, 280, 241, 282, 219, 217, 218)),
}
_EVERYWHERE = (425, 426, 427, 438, 442)
"""io_uring_setup, io_uring_enter and io_uring_register, which open sockets too; pidfd_getfd; mount_setattr."""

_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # of classic BPF
_KILL, _ALLOW, _REFUSE = 0x80000000, 0x7FFF0000, 0x00050000 | errno.EACCES
_NUMBER, _MACHINE = 0, 4  # where struct seccomp_data has them
_OTHER_TABLE = 0x40000000  # x32's calls on x86-64


def restrict() -> bool:
    """Refuse sockets, and looking into other processes, to this process and to all that it starts, for good.

    Pairs of sockets that are connected already still work: only such talk to processes of our own. The process must
    have given up new privileges before.

    Returns:
        Whether the kernel holds it. False on machines whose system calls are not known here.
    """
    machine = _MACHINES.get(platform.machine()) if sys.platform == "linux" else None
    if machine is None:
        return False
    audit, seccomp, refused = machine
    checks = [_instruction(_LOAD, _NUMBER), _instruction(_JUMP_AT_LEAST, _OTHER_TABLE, to=1)]
    numbers = (*refused, *_EVERYWHERE)
    tests = [_instruction(_JUMP_EQUAL, number, to=len(numbers) - place) for place, number in enumerate(numbers)]
    program = [
        _instruction(_LOAD, _MACHINE),
        _instruction(_JUMP_EQUAL, audit, to=1),
        _instruction(_RETURN, _KILL),
        *checks,
        _instruction(0x05, 1),  # jump over the next
        _instruction(_RETURN, _REFUSE),
        *tests,
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, _REFUSE),
    ]
    code = ctypes.create_string_buffer(b"".join(program))
    filter_ = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    result: int = call(*map(ctypes.c_long, (seccomp, _SET_MODE_FILTER, _ALL_THREADS)), filter_)
    return result == 0


def _instruction(code: int, value: int, to: int = 0) -> bytes:
    """One instruction; if its test holds, as many are passed over as `to` says."""
    return struct.pack("HBBI", code, to, 0, value)
