"""Writing files so that an interrupted run leaves the old file or none."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxtool.errors import OutputError


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`, and move it there when the block ends without an error.

    Raises:
        OutputError: the folder does not exist or cannot be written.
    """
    check_writable(target)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(f"Cannot write {target}: {error.strerror}.") from error
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's 0600 would hide the result from its readers
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"Cannot write {target}: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staged_path(target: Path) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder beside `target`, for a result of several files.

    When the block ends without an error, all that lies in the folder moves beside `target`, and `target` last:
    whoever sees it finds what it refers to.

    Raises:
        OutputError: the folder does not exist or cannot be written.
    """
    check_writable(target)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent) as folder:
            staged = Path(folder) / target.name
            yield staged
            for file in sorted(Path(folder).iterdir(), key=lambda file: file == staged):
                file.replace(target.parent / file.name)
    except OSError as error:
        raise OutputError(f"Cannot write {target}: {error.strerror or error}.") from error


def write_text(target: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_writable(target: Path) -> None:
    """Find out, before hours of work, whether `target` can be written.

    Raises:
        OutputError: it cannot; the message says why.
    """
    if target.is_dir():
        raise OutputError(f"Cannot write {target}: it is a folder. Name a file.")
    if not target.parent.is_dir():
        raise OutputError(f"Cannot write {target}: the folder {target.parent} does not exist.")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"Cannot write {target}: the folder {target.parent} is not writable.")
