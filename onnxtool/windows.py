"""Job objects and locks of Windows, by its own functions. `onnxtool.system` alone imports it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

KILL_ON_JOB_CLOSE = 0x2000  # JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE of <winnt.h>
PROCESS_MEMORY = 0x100  # JOB_OBJECT_LIMIT_PROCESS_MEMORY
_EXTENDED_LIMITS = 9  # JobObjectExtendedLimitInformation


class BasicLimits(ctypes.Structure):
    """JOBOBJECT_BASIC_LIMIT_INFORMATION."""

    _fields_ = (
        ("per_process_user_time", ctypes.c_int64),
        ("per_job_user_time", ctypes.c_int64),
        ("flags", ctypes.c_uint32),
        ("minimum_working_set", ctypes.c_size_t),
        ("maximum_working_set", ctypes.c_size_t),
        ("active_processes", ctypes.c_uint32),
        ("affinity", ctypes.c_size_t),
        ("priority_class", ctypes.c_uint32),
        ("scheduling_class", ctypes.c_uint32),
    )


class ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

    _fields_ = (
        ("basic", BasicLimits),
        ("io", ctypes.c_uint64 * 6),
        ("process_memory", ctypes.c_size_t),
        ("job_memory", ctypes.c_size_t),
        ("peak_process_memory", ctypes.c_size_t),
        ("peak_job_memory", ctypes.c_size_t),
    )


def limits_of(memory: int | None) -> ExtendedLimits:
    """The limits of a job that ends with the process that made it."""
    limits = ExtendedLimits()
    limits.basic.flags = KILL_ON_JOB_CLOSE
    if memory is not None:
        limits.basic.flags |= PROCESS_MEMORY
        limits.process_memory = memory
    return limits


class Job:
    """A process and all that it starts, which end with this object, and with this process.

    Args:
        process: The process's handle.
        memory: Bytes that each of its processes may commit; None for no limit.
        kernel: The system's functions.

    Raises:
        OSError: the system makes no job, or does not put the process into it.
    """

    def __init__(self, process: int, memory: int | None, kernel: Any = None) -> None:
        self._kernel = kernel or ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
        self._kernel.CreateJobObjectW.restype = ctypes.c_void_p
        self._handle = ctypes.c_void_p(self._kernel.CreateJobObjectW(None, None))
        limits = limits_of(memory)
        size = ctypes.sizeof(limits)
        if not (
            self._handle
            and self._kernel.SetInformationJobObject(self._handle, _EXTENDED_LIMITS, ctypes.byref(limits), size)
            and self._kernel.AssignProcessToJobObject(self._handle, ctypes.c_void_p(process))
        ):
            raise OSError("The process could not be put into a job object.")

    def end(self) -> None:
        """Kill every process of the job; more than once does no harm."""
        self._kernel.TerminateJobObject(self._handle, 1)

    def __del__(self) -> None:
        """Let go of the job, which ends what is left in it."""
        with suppress(AttributeError):
            self._kernel.CloseHandle(self._handle)


def lock_file(path: Path) -> Callable[[], None]:
    """Lock a file of its own, since Windows has no locks of folders; the function that comes back unlocks it."""
    import msvcrt

    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    msvcrt.locking(handle, msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined]

    def unlock() -> None:
        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]
        os.close(handle)
        with suppress(OSError):  # another waits for it
            path.unlink()

    return unlock
