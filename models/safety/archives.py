"""Untrusted zip archives."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from pathlib import Path

DAMAGE = (
    zipfile.BadZipFile,
    OSError,
    EOFError,
    KeyError,  # a member that is not there
    ValueError,  # a name that is no text, among others
    NotImplementedError,  # a packing or a version that nobody knows
    RuntimeError,  # a member with a password
    zlib.error,
    lzma.LZMAError,
)
"""What `zipfile` raises of an archive that is damaged."""


def members(path: Path) -> frozenset[str]:
    """Names of what is in an archive; none where it is no archive or is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(archive.namelist())
    except DAMAGE:
        return frozenset()
