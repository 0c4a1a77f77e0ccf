"""A process that clears up after this one, however it ends: SIGKILL leaves no time to do so oneself.

It is forked before anything heavy is imported, and waits for the end of a pipe that only this process holds open.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from onnxtool import system
from onnxtool.errors import OutputError

_pipe: int | None = None


def start() -> None:
    """Start a janitor, and put temporary files of this process and its children where it finds them.

    To be called once, while there is one thread. Where processes cannot be forked it is a new interpreter.

    Raises:
        OutputError: no folder for temporary files can be written.
    """
    global _pipe  # noqa: PLW0603 - of the process, as the janitor is
    if _pipe is not None:
        return
    try:
        temporary = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise OutputError(f"{error.strerror}: free some space, or name a folder in TMPDIR.") from error
    _pipe = _forked() if system.CAN_FORK else _spawned()
    folder = Path(temporary, f"onnxtool-{secrets.token_hex(6)}")
    watch(folder)  # before there is anything to clear up
    folder.mkdir(mode=0o700)
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def watch(path: Path) -> None:
    """Remove a file or folder when this process has ended, if it still exists then."""
    if _pipe is not None:
        os.write(_pipe, os.fsencode(path.absolute()) + b"\0")


def _forked() -> int:
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        try:
            os.close(write_end)
            os.setsid()  # Ctrl-C, and a signal to the whole group, are not for it
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):  # or whoever reads our output would wait for it
                os.dup2(null, stream)
            wait(read_end)
        finally:
            os._exit(0)
    os.close(read_end)
    return write_end


def _spawned() -> int:
    code = "from onnxtool import janitor; janitor.wait(0)"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        **system.own_group(),
    )
    assert process.stdin is not None  # noqa: S101 - it was to be a pipe
    process.returncode = 0  # it outlives this process: nothing waits for it
    return os.dup(process.stdin.fileno())


def wait(read_end: int) -> None:
    """Within the janitor: wait for the end of the process, and remove what it left."""
    received = b""
    while chunk := os.read(read_end, 4096):
        received += chunk
    for name in reversed(received.split(b"\0")[:-1]):
        path = Path(os.fsdecode(name))
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
