"""Starting a module of ours confined: how, and with how little of our environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import IO, BinaryIO, cast

from onnxtool.sandbox.disk import used
from onnxtool.sandbox.limits import Limits
from onnxtool.system import adopt, kill_group, own_group

_PASSED = {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT"}
_PASSED_FAMILIES = (
    *("LC_", "PYTHON", "OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_"),
    *("TF_", "XLA_", "KERAS_", "TORCH_", "PYTORCH_", "CUDA_", "NVIDIA_", "ORT_"),
)
"""Variables that configure libraries. The rest of an environment in CI may be credentials."""


_DISK_CHECK_S = 0.5
"""Seconds between two looks at what a process has written: a disk takes some hundred MB between them."""

UNCONFINED = 77
"""Exit code of a process that was to be confined wholly or not at all, and could not be."""


def confinement(limits: Limits, writable: Iterable[Path], readable: Iterable[Path]) -> list[str]:
    """The arguments between `python -m` and a module that confine it.

    Args:
        limits: Memory and files; time is for whoever waits.
        writable: The folders in which it may write.
        readable: What it may read besides the system's files and Python's.
    """
    bounds = {
        "limits": asdict(limits),
        "writable": [str(path) for path in writable],
        "readable": [str(path.absolute()) for path in readable],
    }
    return ["onnxtool.sandbox", json.dumps(bounds)]


def environment(folder: Path) -> dict[str, str]:
    """Its environment, whose temporary files and caches go to its folder."""
    passed = {
        name: value for name, value in os.environ.items() if name in _PASSED or name.startswith(_PASSED_FAMILIES)
    }
    own = dict.fromkeys(("TMPDIR", "TEMP", "TMP", "XDG_CACHE_HOME", "MPLCONFIGDIR"), str(folder))
    return {**passed, **own, "PYTHONPATH": os.pathsep.join(sys.path)}


class ConfinedProcess:
    """A module of ours in a confined process that answers requests over pipes.

    It ends, and its folder goes, when this object does.

    Args:
        module: The module. Its arguments are the id of its parent, 0 where it may outlive the parent, and its folder.
        limits: What it may use.
        readable: What it may read besides the system's files and Python's.
        log: Where its standard error goes, closed with it; None drops it.
        variables: Additions to its environment.

    Attributes:
        folder: Where it may write.
        requests: Its standard input.
        answers: Its standard output.
        overfull: Set when it was killed because its files took more of the disk than it may have memory.
        end: Kills it with all that it started, and deletes its folder; more than once does no harm.
    """

    def __init__(
        self,
        module: str,
        limits: Limits,
        readable: Iterable[Path],
        *,
        log: IO[bytes] | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="onnxtool-confined-"))
        self.log = log
        self._timeout = limits.timeout
        # The kernel ends a process with the thread that started it, and another thread may end before we do.
        parent = os.getpid() if threading.current_thread() is threading.main_thread() else 0
        confined = confinement(limits, [self.folder], readable)
        self.process = subprocess.Popen(
            # -P: the current folder is on its import path only where it is on ours
            [sys.executable, "-P", "-m", *confined, module, str(parent), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log or subprocess.DEVNULL,
            env={**environment(self.folder), **variables},
            **own_group(),
        )
        adopt(self.process, limits.memory)
        self.requests, self.answers = (cast(BinaryIO, pipe) for pipe in (self.process.stdin, self.process.stdout))
        self.overfull = threading.Event()
        watched = (self.process, self.folder, limits.memory, self.overfull)
        threading.Thread(target=_watch_disk, args=watched, daemon=True).start()
        self.end = weakref.finalize(self, _end, self.process, log, self.folder)

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def kill(self) -> None:
        """Kill it and all that it started."""
        kill_group(self.process)

    @contextmanager
    def deadline(self) -> Iterator[threading.Event]:
        """Kill it when the block takes longer than the limits allow; the event then is set."""
        late = threading.Event()
        process = self.process  # not self: the timer's thread may outlive the block, and must not keep this object

        def stop() -> None:
            late.set()
            kill_group(process)

        timer = threading.Timer(self._timeout, stop)
        timer.daemon = True
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()


def _watch_disk(process: subprocess.Popen[bytes], folder: Path, most: int, overfull: threading.Event) -> None:
    """Kill a process whose files outgrow what it may have; ends with the process."""
    while process.poll() is None:
        if used(folder, process.pid) > most:
            overfull.set()
            kill_group(process)
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(_DISK_CHECK_S)


def _end(process: subprocess.Popen[bytes], log: IO[bytes] | None, folder: Path) -> None:
    kill_group(process)
    process.wait()
    for stream in (process.stdin, process.stdout, log):
        if stream is not None:
            with suppress(OSError):  # a broken pipe, with half a request in the buffer
                stream.close()
    shutil.rmtree(folder, ignore_errors=True)


def lacks() -> list[str]:
    """The restrictions that this machine cannot enforce, found out in a confined process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-P", "-m", *confinement(Limits(), [Path(folder)], [])]
        done = subprocess.run(command, env=environment(Path(folder)), capture_output=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found
