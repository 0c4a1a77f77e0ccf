"""Writing files so that an interrupted run leaves the old file or none."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxtool import janitor, system
from onnxtool.errors import OnnxtoolError, OutputError


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn the system's errors within the block into an `OutputError` that names `target`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"Cannot write {target}: {error.strerror or error}.") from error


@contextmanager
def staged_path(target: Path) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder next to `target`.

    When the block ends without an error, all files in the folder move next to `target`, and `target` last:
    whoever sees it finds what it refers to.

    Raises:
        OutputError: the folder does not exist or cannot be written.
    """
    check_writable(target)
    with scratch_next_to(target) as folder:
        staged = folder / target.name
        try:
            yield staged
        except OnnxtoolError as error:  # of whoever wrote or read there, and knows no other path
            error.args = (str(error).replace(str(staged), str(target)),)
            raise
        with writing(target), _alone_in(target.parent):
            for file in sorted(folder.iterdir(), key=lambda file: file == staged):
                file.chmod(staged.stat().st_mode)  # onnx writes weights for their owner's eyes alone
                system.replace(file, target.parent / file.name)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """No other run moves its files into a folder meanwhile, so that weights and the graph that names them are of one.

    See `system.lock` for where the system has none.
    """
    unlock = system.lock(folder)
    try:
        yield
    finally:
        unlock()


@contextmanager
def scratch_next_to(target: Path) -> Iterator[Path]:
    """A temporary folder next to `target`, since a move is atomic only within a file system.

    Raises:
        OutputError: it cannot be made.
    """
    short = os.fsdecode(os.fsencode(target.name)[:200])  # file systems take 255 bytes
    place = Path(system.long_path(str(target.parent.absolute()))) if system.WINDOWS else target.parent
    folder = place / f".{short}.{secrets.token_hex(6)}.tmp"
    janitor.watch(folder)  # before there is anything to clear up
    with writing(target):
        folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(target: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8.

    Raises:
        OutputError: it cannot be written.
    """
    with staged_path(target) as staged, writing(target):
        staged.write_text(text, encoding="utf-8", newline="\n")


def check_writable(target: Path) -> None:
    """Find out, before hours of work, whether `target` can be written.

    Raises:
        OutputError: it cannot; the message says why.
    """
    with writing(target):  # a name that is too long, for one
        is_folder, has_folder = target.is_dir(), target.parent.is_dir()
    if is_folder:
        raise OutputError(f"Cannot write {target}: it is a folder. Name a file.")
    if not has_folder:
        raise OutputError(f"Cannot write {target}: the folder {target.parent} does not exist.")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"Cannot write {target}: the folder {target.parent} is not writable.")
