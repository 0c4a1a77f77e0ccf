"""Seccomp, Linux's filter of system calls: <https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html>.

A library that computes opens no socket, so that refusing them costs nothing, and needs no privilege: a network
namespace would, and many machines grant none.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

from onnxtool.system import LINUX

# The machine's own number in <linux/audit.h>; the system calls of seccomp, mmap and clone; those that are refused:
# socket, ptrace, process_vm_readv, process_vm_writev, setns, unshare, bpf, perf_event_open, userfaultfd, keyctl,
# add_key, request_key; memfd_create, shmget, shmat, shmctl, semget, msgget and mq_open, whose memory no limit counts;
# setsid and setpgid, by which a process leaves the group that is ended; chmod, fchmod, fchmodat, chown, fchown,
# lchown, fchownat, utime, utimes, utimensat, futimesat, and setxattr and removexattr in their three forms, which
# Landlock lets through everywhere; fork and vfork. ARM64 has fewer.
_MACHINES = {
    "x86_64": (
        0xC000003E, 317, 9, 56,
        (41, 101, 310, 311, 308, 272, 321, 298, 323, 250, 248, 249, 319, 29, 30, 31, 64, 68, 240, 112, 109,
         90, 91, 268, 92, 93, 94, 260, 132, 235, 280, 261, 188, 189, 190, 197, 198, 199, 57, 58),
    ),
    "aarch64": (
        0xC00000B7, 277, 222, 220,
        (198, 117, 270, 271, 268, 97, 280, 241, 282, 219, 217, 218, 279, 194, 196, 195, 190, 186, 180, 157, 154,
         52, 53, 55, 54, 88, 5, 6, 7, 14, 15, 16),
    ),
}  # fmt: skip
_EVERYWHERE = (425, 426, 427, 438, 442, 452, 463, 466)
"""io_uring_setup, io_uring_enter and io_uring_register, which open sockets too; pidfd_getfd; mount_setattr;
fchmodat2; setxattrat; removexattrat."""
_CLONE3 = 435
"""Its flags are in memory, where no filter looks; where it is not, C libraries take clone."""
_CLONE_THREAD, _ANONYMOUS_SHARED = 0x10000, 0x21
"""A thread and no process; memory that is shared and no file's, which no limit counts."""

_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_LOAD, _AND, _JUMP, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x35, 0x06  # of classic BPF
_KILL, _ALLOW, _ERROR = 0x80000000, 0x7FFF0000, 0x00050000
_REFUSE, _ABSENT = _ERROR | errno.EACCES, _ERROR | errno.ENOSYS
_NUMBER, _MACHINE, _FIRST, _FOURTH = (
    0,
    4,
    16,
    40,
)  # where struct seccomp_data has them, and the arguments' lower halves
_OTHER_TABLE = 0x40000000  # x32's calls on x86-64


def restrict() -> bool:
    """Refuse to this process, for good, sockets, looking into other processes, and processes of its own.

    So is changing the rights, owners, times and attributes of files, and memory that no limit counts.

    Pairs of sockets that are connected already still work: only such talk to processes of our own. The process must
    have given up new privileges before.

    Returns:
        Whether the kernel holds it. False on machines whose system calls are not known here.
    """
    machine = _MACHINES.get(platform.machine()) if LINUX else None
    if machine is None:
        return False
    audit, seccomp, mmap, clone, refused = machine
    numbers = (*refused, *_EVERYWHERE)
    program = [
        _instruction(_LOAD, _MACHINE),
        _instruction(_JUMP_EQUAL, audit, to=1),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
        _instruction(_JUMP_AT_LEAST, _OTHER_TABLE, otherwise=1),
        _instruction(_RETURN, _REFUSE),
        _instruction(_JUMP_EQUAL, _CLONE3, otherwise=1),
        _instruction(_RETURN, _ABSENT),
        *_refused_if(clone, _FIRST, _CLONE_THREAD, 0),
        *_refused_if(mmap, _FOURTH, _ANONYMOUS_SHARED, _ANONYMOUS_SHARED),
        *(_instruction(_JUMP_EQUAL, number, to=len(numbers) - place) for place, number in enumerate(numbers)),
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, _REFUSE),
    ]
    code = ctypes.create_string_buffer(b"".join(program))
    filter_ = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    result: int = call(*map(ctypes.c_long, (seccomp, _SET_MODE_FILTER, _ALL_THREADS)), filter_)
    return result == 0


def _refused_if(call: int, argument: int, mask: int, value: int) -> list[bytes]:
    """Refuse a system call one of whose arguments has these bits; other calls go on."""
    return [
        _instruction(_JUMP_EQUAL, call, otherwise=5),
        _instruction(_LOAD, argument),
        _instruction(_AND, mask),
        _instruction(_JUMP_EQUAL, value, otherwise=1),
        _instruction(_RETURN, _REFUSE),
        _instruction(_RETURN, _ALLOW),
    ]


def _instruction(code: int, value: int, to: int = 0, otherwise: int = 0) -> bytes:
    """One instruction; as many are passed over as `to` says if its test holds, and as `otherwise` says if not."""
    return struct.pack("HBBI", code, to, otherwise, value)
