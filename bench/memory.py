"""Resident memory of this process and its peak."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import psutil


def resident() -> int:
    """Resident memory now, in bytes."""
    return int(psutil.Process().memory_info().rss)


def reset_peak() -> None:
    """Start the peak anew where the system can (Linux), so that importing libraries does not count."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Greatest resident memory since `reset_peak`, in bytes.

    Linux hands `ru_maxrss` on from the process that started this one, so a small worker of a large parent
    would report the parent's; VmHWM is the process's own.
    """
    if sys.platform == "linux":
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
        return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
