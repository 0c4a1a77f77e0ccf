"""Giving up, for good, what opening a model does not need."""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from onnxtool.sandbox import landlock, seccomp
from onnxtool.sandbox.limits import Limits
from onnxtool.sandbox.promises import FILES, MEMORY, NETWORK
from onnxtool.system import LINUX, limit

_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS of <linux/prctl.h>
_READ_OTHERS_FILES = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, which root may need to reach the model
_CAPABILITIES = 0x20080522  # _LINUX_CAPABILITY_VERSION_3

_SYSTEM = (
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc",
    "/opt",
    "/proc",
    "/sys",
    "/dev",
    "/nix",
    "/gnu",
)

confined = False
"""Whether this process is."""

missing: list[str] = []
"""What it could not give up: values of `promises.PROMISES`."""


def confine(limits: Limits, writable: Iterable[Path], readable: Iterable[Path]) -> None:
    """Confine this process, and all that it starts: see `missing` for what the system would not do.

    To be called before anything heavy is imported, while there is one thread.

    Args:
        limits: Memory and files; time is for the process that waits.
        writable: The folders in which it may write.
        readable: What it may read besides the system's files and Python's.
    """
    global confined  # noqa: PLW0603 - of the process, as what it gives up is
    confined = True
    missing[:] = [] if limit(limits.memory, limits.files) else [MEMORY]
    if not LINUX:
        missing.extend((NETWORK, FILES))
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _drop_capabilities(libc)
    python = (
        sys.prefix,
        sys.base_prefix,
        sysconfig.get_path("purelib"),
        *sys.path,
        str(Path(__file__).parents[2]),
    )
    imports = [Path(name or ".").resolve() for name in python]
    keras = Path(os.environ.get("KERAS_HOME", Path("~/.keras").expanduser()), "keras.json")
    own = (Path("/dev/null"), Path("/proc/self/clear_refs"))  # the latter resets the peak of memory
    if not landlock.restrict([*map(Path, _SYSTEM), *imports, keras, *readable], [*writable, *own]):
        missing.append(FILES)
    if not seccomp.restrict():
        missing.append(NETWORK)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """As root, keep the right to read the file and no other."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets):
        return
    kept = [value & _READ_OTHERS_FILES for value in sets[:2]]
    libc.capset(header, (ctypes.c_uint32 * 6)(*kept, 0, 0, 0, 0))
