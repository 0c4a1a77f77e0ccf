"""A worker process under a time limit, with everything that it says captured."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, BinaryIO

LOG_LIMIT = 1 << 18


@dataclass(frozen=True, slots=True)
class Outcome:
    """The way in which a worker ended.

    Attributes:
        log: The last 256 kB of what it and its children wrote to standard output and standard error.
        exit_code: As in `subprocess`, negative for a signal; None when it was ended for being late.
    """

    log: str
    exit_code: int | None


def signal_name(number: int) -> str:
    """The name of a signal, as in `SIGKILL`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def run_worker(
    module: Sequence[str], task: BinaryIO, answer: BinaryIO, environment: Mapping[str, str], timeout_s: float
) -> Outcome:
    """Run a module of ours in a separate process.

    However it returns or raises, the worker and its children have ended.

    Args:
        module: What follows `python -m`; the answer's file descriptor and the id of this process are added.
        task: A real file, its standard input.
        answer: A real file that it writes to.
        environment: Its environment, except the import path, which is this process's.
        timeout_s: It is ended after this time.
    """
    log_read, log_write = os.pipe()
    with os.fdopen(log_read, "rb", buffering=0) as log, os.fdopen(log_write, "wb", buffering=0) as log_end:
        os.set_blocking(log_read, False)
        with _worker(module, task, answer, log_end, environment) as process:
            log_end.close()
            text, in_time = _watch(process, log, time.monotonic() + timeout_s)
        _, text = _drain(log, text)
    return Outcome(text.decode(errors="replace"), process.returncode if in_time else None)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads a group of its own, and all in the group; on Windows the process alone."""
    if os.name != "posix":
        process.kill()
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _worker(
    module: Sequence[str], task: BinaryIO, answer: BinaryIO, log_end: IO[bytes], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, so that it can be ended with its children and Ctrl-C is ours to handle."""
    process = subprocess.Popen(
        # -P: the current folder is on its import path only where it is on ours
        [sys.executable, "-P", "-m", *module, str(answer.fileno()), str(os.getpid())],
        stdin=task,
        stdout=log_end,
        stderr=log_end,
        pass_fds=[answer.fileno()],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        process_group=0,
    )
    try:
        yield process
    finally:
        kill_group(process)
        process.wait()


def _watch(process: subprocess.Popen[bytes], log: IO[bytes], deadline: float) -> tuple[bytes, bool]:
    """Collect the log until the worker has ended, or is late.

    The end of the log does not show it: a child of the worker may outlive it and keep the log open.
    """
    text, is_open = b"", True
    with selectors.DefaultSelector() as selector:
        selector.register(log, selectors.EVENT_READ)
        while process.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return text, False
            if not is_open:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(left)
            elif selector.select(min(left, 0.2)):
                is_open, text = _drain(log, text)
    return text, True


def _drain(log: IO[bytes], text: bytes) -> tuple[bool, bytes]:
    """Add what the log holds by now, and say whether it is still open."""
    chunk = log.read(1 << 20)
    return chunk != b"", (text + (chunk or b""))[-LOG_LIMIT:]


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST = 500


def last_line(log: str) -> str | None:
    """The last line of a worker's standard error that is not blank, without colours, 500 characters at most."""
    lines = [line.strip() for line in _COLOUR.sub("", log).splitlines() if line.strip()]
    return lines[-1][:_LONGEST] if lines else None
