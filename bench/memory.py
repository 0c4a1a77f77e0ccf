"""Resident memory of this process and its peak."""

from __future__ import annotations

import psutil

from onnxtool.system import peak_memory as peak
from onnxtool.system import reset_peak_memory as reset_peak

__all__ = ["peak", "reset_peak", "resident"]


def resident() -> int:
    """Resident memory now, in bytes."""
    return int(psutil.Process().memory_info().rss)
