"""Landlock, Linux's access control that a process puts on itself: <https://docs.kernel.org/userspace-api/landlock.html>.

What is not allowed here is denied, to this thread and to all that it starts, for good.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from onnxtool.system import LINUX

# The numbers of <linux/landlock.h>; system calls have the same numbers on all of Linux's architectures but alpha.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL = (1 << bit for bit in (0, 1, 2, 3, 14, 15))
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights to files that a version of the interface knows."""
_TCP = 0b11
"""To bind and to connect."""
_SCOPES = 0b11
"""Abstract Unix sockets, and signals, of processes outside."""


def version() -> int:
    """The version of the kernel's interface, 0 where there is none."""
    if not LINUX:
        return 0
    return max(0, _call(_CREATE_RULESET, None, 0, _VERSION_FLAG))


def restrict(readable: Iterable[Path], writable: Iterable[Path]) -> bool:
    """Keep this process from all files but some, and from running programs.

    Where the kernel can, TCP and signals to other processes are denied too. Nothing is denied to files that are
    open already. The process must have given up new privileges before.

    Args:
        readable: Files and folders, with all that is in them, that may be read. Any that does not exist is passed
            over.
        writable: Those in which anything may be done, save running it.

    Returns:
        Whether the kernel holds it. False where it has no Landlock.
    """
    known = version()
    if not known:
        return False
    rights = _RIGHTS[min(known, 5)]
    attributes = struct.pack("QQQ", rights, _TCP if known >= 4 else 0, _SCOPES if known >= 6 else 0)
    size = 24 if known >= 6 else 16 if known >= 4 else 8
    ruleset = _call(_CREATE_RULESET, attributes, size, 0)
    if ruleset < 0:
        return False
    try:
        for path in readable:
            _allow(ruleset, path, _READ_FILE | _READ_DIR)
        for path in writable:
            _allow(ruleset, path, rights & ~_EXECUTE)
        return _call(_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # nothing there to allow
        return
    try:
        allowed = rights if path.is_dir() else rights & _OF_FILES
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", allowed, file), 0)
    finally:
        os.close(file)


def _call(number: int, *arguments: int | bytes | None) -> int:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    found = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = call(ctypes.c_long(number), *found)
    return result
