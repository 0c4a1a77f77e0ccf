"""What the operating system offers: process groups, limits, locks, the end of a process, peak memory, consoles.

Every other module calls this one for them, and none looks at the platform for itself. Where a system has no such
thing, the next best of its own stands here: Windows has job objects, macOS has no /proc. Nothing else of the package
is imported, and no POSIX-only module is needed.
"""

from __future__ import annotations

import codecs
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

LINUX: Final = sys.platform.startswith("linux")
WINDOWS: Final = os.name == "nt"

CAN_FORK: Final = hasattr(os, "fork")

LONGEST_WINDOWS_PATH = 240
"""Characters that Windows takes in a path without its long form, with room for the name of a file below it."""


# -- Processes ----------------------------------------------------------------------------------------------


def own_group() -> dict[str, Any]:
    """Options of `subprocess.Popen` for a process that is ended with its children, and not by Ctrl-C."""
    if hasattr(os, "killpg"):
        return {"process_group": 0}
    return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}


def adopt(process: subprocess.Popen[bytes], memory: int | None = None) -> None:
    """Tie a process just started to this one, where that is done from outside: by a job object of Windows.

    It then ends with this process, however this one ends, together with all that it starts.

    Args:
        process: The process, started with the options of `own_group`.
        memory: Bytes that it and its children may each commit; None for no limit.
    """
    if WINDOWS:
        from onnxtool.windows import Job

        process.job = Job(int(process._handle), memory)  # type: ignore[attr-defined] # closed with the process


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that was started with the options of `own_group`, and all that it started."""
    if job := getattr(process, "job", None):
        job.end()
        return
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        return
    import psutil

    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()


def die_with(parent: int) -> None:
    """End this process with the one that started it, in whatever way that one ends.

    Linux's kernel does so. Elsewhere a thread looks once a second; Windows' job objects, see `adopt`, come first.
    """
    if LINUX:
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
        ctypes.CDLL(None).prctl(set_parent_death_signal, int(getattr(signal, "SIGKILL", signal.SIGTERM)))
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)
        return

    threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: int, wait: Callable[[float], None] = time.sleep) -> None:
    import psutil

    while os.getppid() == parent and psutil.pid_exists(parent):
        wait(1.0)
    os._exit(1)


def signal_name(number: int) -> str:
    """The name of a signal, as in `SIGKILL`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def ran_out_of_memory(exit_code: int) -> bool:
    """Whether a process ended as the system ends those for which it has no memory."""
    return exit_code == -getattr(signal, "SIGKILL", 0) != 0


# -- Limits and memory --------------------------------------------------------------------------------------


def limit(memory: int, files: int) -> bool:
    """Limit memory and files of this process, for good.

    Args:
        memory: Bytes that it may allocate, and that each of its files may have.
        files: Files that it may have open at a time.

    Returns:
        Whether the system limits memory: macOS takes the number and does nothing. Of Windows, see `adopt`.
    """
    try:
        import resource
    except ImportError:
        return WINDOWS
    for kind, most in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_FSIZE, memory),
        (resource.RLIMIT_CORE, 0),  # a dump would contain the model
    ):
        hard = resource.getrlimit(kind)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))
    return LINUX


def machine_memory() -> int:
    """Bytes of memory of the machine."""
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    import psutil

    return int(psutil.virtual_memory().total)


def bound_cores() -> int:
    """Cores to which this process is bound, or all where the system binds none."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    import psutil

    with suppress(AttributeError, NotImplementedError, psutil.Error):  # macOS
        return len(psutil.Process().cpu_affinity())
    return os.cpu_count() or 1


def reset_peak_memory() -> None:
    """Start the peak anew where the system can (Linux), so that importing libraries does not count."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> int:
    """Greatest resident memory of this process since `reset_peak_memory`, in bytes.

    Linux hands `ru_maxrss` on from the process that started this one, so a small worker of a large parent
    would report the parent's; VmHWM is the process's own.
    """
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if "VmHWM" in line).split()[1]) * 1024
    import psutil

    found: Any = psutil.Process().memory_info()
    if hasattr(found, "peak_wset"):  # Windows
        return int(found.peak_wset)
    try:
        import resource
    except ImportError:
        return int(found.rss)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# -- Files and consoles -------------------------------------------------------------------------------------


def lock(folder: Path) -> Callable[[], None]:
    """Keep other runs from a folder until the function that comes back is called.

    Where the system has no such locks (some network drives), two runs are not kept from each other.
    """
    with suppress(ImportError, OSError):
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        return lambda: os.close(handle)
    if WINDOWS:
        from onnxtool.windows import lock_file

        with suppress(OSError):
            return lock_file(folder / ".onnxtool.lock")
    return lambda: None


def replace(source: Path, target: Path) -> None:
    """Move a file in another's place.

    Raises:
        OSError: it cannot be; on Windows, where no file that a program has open can be replaced, after a second.
    """
    for _ in range(20 if WINDOWS else 1):
        try:
            source.replace(target)
        except PermissionError as error:
            if not WINDOWS:
                raise
            reason = f"{error.strerror}: a program has the file open"
            time.sleep(0.05)
        else:
            return
    raise PermissionError(13, reason, str(target))


def long_path(path: str, *, windows: bool = WINDOWS) -> str:
    r"""A path as the system takes it however long it is: on Windows with `\\?\` before 260 characters are reached.

    Args:
        path: An absolute path.
        windows: Whether it is one of Windows.
    """
    if not windows or len(path) < LONGEST_WINDOWS_PATH or path.startswith("\\\\?\\"):
        return path
    path = path.replace("/", "\\")
    return f"\\\\?\\UNC\\{path[2:]}" if path.startswith("\\\\") else f"\\\\?\\{path}"


_PLAIN = {
    "✓": "+", "✗": "x", "○": "o", "★": "*", "→": "->", "─": "-", "│": "|", "·": "-", "–": "-", "—": "-", "…": "...",  # noqa: RUF001
    "µ": "u", "×": "x", "±": "+-", "≤": "<=", "≥": ">=", "━": "=",  # noqa: RUF001
}  # fmt: skip
"""What stands for a sign in code pages that lack it."""


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101 - no other comes of writing
    return "".join(_PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


def fit_console(stream: Any) -> None:
    """Have a stream write signs that its code page lacks as others, as cp1252 lacks ✓, and not fail."""
    codecs.register_error("onnxtool-plain", _plain)
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="onnxtool-plain")


def write_exactly(text: str, stream: IO[str]) -> None:
    """Write text for programs: UTF-8 and line feeds, whatever the stream's code page and line ends are."""
    stream.flush()
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        stream.write(text)
        return
    buffer.write(text.encode())
    buffer.flush()
