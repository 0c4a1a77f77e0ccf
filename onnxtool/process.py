"""A worker process under a time limit, with everything that it says captured."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from onnxtool import system

LOG_LIMIT = 1 << 18
_LAST_WORDS_S = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The way in which a worker ended.

    Attributes:
        log: The last 256 kB of what it and its children wrote to standard output and standard error.
        exit_code: As in `subprocess`, negative for a signal; None when it was ended for being late.
    """

    log: str
    exit_code: int | None


def run_worker(
    module: Sequence[str], task: BinaryIO, answer: BinaryIO, environment: Mapping[str, str], timeout_s: float
) -> Outcome:
    """Run a module of ours in a separate process.

    However it returns or raises, the worker and its children have ended.

    Args:
        module: What follows `python -m`; the id of this process is added.
        task: A real file, its standard input.
        answer: A real file, its standard output: see `answering`.
        environment: Its environment, except the import path, which is this process's.
        timeout_s: It is ended after this time.
    """
    process = subprocess.Popen(
        # -P: the current folder is on its import path only where it is on ours
        [sys.executable, "-P", "-m", *module, str(os.getpid())],
        stdin=task,
        stdout=answer,
        stderr=subprocess.PIPE,
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        **system.own_group(),
    )
    text = bytearray()
    listener = threading.Thread(target=_listen, args=(process.stderr, text), daemon=True)
    in_time = False
    try:
        system.adopt(process)
        listener.start()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
            in_time = True
    finally:
        system.kill_group(process)
        process.wait()
    listener.join(_LAST_WORDS_S)  # a process that left the group may keep the log open
    return Outcome(bytes(text).decode(errors="replace"), process.returncode if in_time else None)


def answering() -> BinaryIO:
    """Within a worker: the file of its answer. What libraries print goes to its log from now on."""
    sys.stdout.flush()
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answer


def _listen(log: BinaryIO, text: bytearray) -> None:
    with suppress(ValueError, OSError), log:
        while chunk := log.read1(1 << 16):  # type: ignore[attr-defined]
            text += chunk
            del text[:-LOG_LIMIT]


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST = 500


def last_line(log: str) -> str | None:
    """The last line of a worker's standard error that is not blank, without colours, 500 characters at most."""
    lines = [line.strip() for line in _COLOUR.sub("", log).splitlines() if line.strip()]
    return lines[-1][:_LONGEST] if lines else None
