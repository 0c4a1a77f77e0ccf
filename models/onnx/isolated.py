"""ONNX Runtime in a process of its own, for models that somebody else made.

A model may divide by what ends a process, loop without end or allocate all of the memory. Within `isolated`, sessions
on the CPU are made and run in a confined process with limits; what comes back are arrays.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from onnxtool.errors import ModelError
from onnxtool.models.rows.channel import read_message, write_message
from onnxtool.models.signature import Tensors
from onnxtool.reports import units
from onnxtool.sandbox.launch import ConfinedProcess
from onnxtool.sandbox.limits import Limits
from onnxtool.system import signal_name

WORKER = "onnxtool.models.onnx.runtime_worker"

_runtimes: ContextVar[_Runtimes | None] = ContextVar("runtimes", default=None)


@contextlib.contextmanager
def isolated(limits: Limits | None) -> Iterator[None]:
    """Have sessions on the CPU in processes of their own, which end with the block.

    Args:
        limits: What each of them may use; None runs models in this process.
    """
    if limits is None or _runtimes.get() is not None:
        yield
        return
    runtimes = _Runtimes(limits)
    token = _runtimes.set(runtimes)
    try:
        yield
    finally:
        _runtimes.reset(token)
        runtimes.end()


def is_isolated() -> bool:
    """Whether sessions are made in processes of their own here."""
    return _runtimes.get() is not None


def open_isolated(
    model: Path | bytes,
    *,
    files: Sequence[Path] = (),
    optimized: bool = True,
    options: Mapping[str, str] = MappingProxyType({}),
    severity: int,
) -> Session:
    """A session in a process of its own.

    Args:
        model: The file, or its content.
        files: The file and those of its external data.
        optimized: Whether ONNX Runtime changes the graph.
        options: Of the session, as `settings` has them.
        severity: The least of its messages that is kept.

    Raises:
        ModelError: the model ends the process, or takes more than its limits.
        RuntimeError: ONNX Runtime refuses it; the message is the runtime's.
    """
    runtimes = _runtimes.get()
    assert runtimes is not None  # noqa: S101 - the caller has checked `is_isolated`
    return runtimes.open(model, files, optimized=optimized, options=options, severity=severity)


def reference_isolated(model: bytes, feeds: Tensors) -> Tensors:
    """Every tensor of a model by ONNX's reference implementation, which runs in a process of its own.

    Raises:
        ModelError: the model ends the process, or takes more than its limits.
        RuntimeError: the reference cannot run it.
    """
    runtimes = _runtimes.get()
    assert runtimes is not None  # noqa: S101 - as above
    names, arrays = runtimes.shared().request(
        {"request": "reference"}, {**_as_tensor(model), **_numbered(feeds)}, list(feeds)
    )
    return {name: arrays[str(place)] for place, name in enumerate(names)}


def rewrite_isolated(worker: str, content: dict[str, Any], model: bytes) -> bytes:
    """A model as a program rewrites it that runs in a process of its own.

    Args:
        worker: Module of the process, which calls `runtime_worker.serve`.
        content: The request.
        model: The model, serialized.

    Raises:
        ModelError: the program ends the process, or takes more than its limits.
        RuntimeError: the program fails.
    """
    runtimes = _runtimes.get()
    assert runtimes is not None  # noqa: S101 - as above
    _, arrays = runtimes.shared(worker).request(content, _as_tensor(model), [])
    return arrays["model"].tobytes()


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output of a session, as ONNX Runtime describes it."""

    name: str
    shape: list[int | str | None]


class Session:
    """What is used of `onnxruntime.InferenceSession`, in another process."""

    def __init__(self, process: RuntimeProcess, described: Any) -> None:
        self._process = process
        self._number = int(described["session"])
        self._inputs, self._outputs = (
            [Value(str(name), list(shape)) for name, shape in described[kind]] for kind in ("inputs", "outputs")
        )
        weakref.finalize(self, process.close, self._number)

    def get_inputs(self) -> list[Value]:
        """Its inputs."""
        return self._inputs

    def get_outputs(self) -> list[Value]:
        """Its outputs."""
        return self._outputs

    def run(self, names: Sequence[str] | None, feeds: Tensors) -> list[Any]:
        """Run one batch; a map of classes is a dictionary a row, and what has no array is None.

        Raises:
            ModelError: the run ends the process, or takes more than its limits.
            RuntimeError: ONNX Runtime fails; the message is the runtime's.
        """
        content = {
            "request": "run",
            "session": self._number,
            "outputs": list(names) if names is not None else None,
        }
        found, arrays = self._process.request(content, _numbered(feeds), list(feeds))
        return [_value(place, entry, arrays) for place, entry in enumerate(found)]


def _value(place: int, entry: Any, arrays: Tensors) -> Any:
    if entry == "array":
        return arrays[str(place)]
    if isinstance(entry, dict) and "rows" in entry:
        return [dict(row) for row in entry["rows"]]
    if isinstance(entry, dict):
        return [arrays[f"{place}.{item}"] for item in range(int(entry["items"]))]
    return None


def _numbered(feeds: Tensors) -> Tensors:
    """Arrays by number: a name may be anything."""
    return {str(place): array for place, array in enumerate(feeds.values())}


def _as_tensor(content: bytes) -> Tensors:
    return {"model": np.frombuffer(content, dtype=np.uint8)}


class _Runtimes:
    """The processes of a block: one a module for models in memory, and one for each file that has external data."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._shared: dict[str, RuntimeProcess] = {}
        self._others: list[RuntimeProcess] = []

    def shared(self, worker: str = WORKER) -> RuntimeProcess:
        process = self._shared.get(worker)
        if process is None or process.ended:
            process = self._shared[worker] = RuntimeProcess(self.limits, [], worker)
        return process

    def open(
        self,
        model: Path | bytes,
        files: Sequence[Path],
        *,
        optimized: bool,
        options: Mapping[str, str],
        severity: int,
    ) -> Session:
        settings = {"optimized": optimized, "options": dict(options), "severity": severity}
        content: dict[str, Any] = {"request": "open", **settings}
        tensors: Tensors = {}
        if isinstance(model, bytes) or len(files) <= 1:
            process = self.shared()
            tensors = _as_tensor(model if isinstance(model, bytes) else model.read_bytes())
        else:
            process = RuntimeProcess(self.limits, [path.resolve() for path in files])
            self._others.append(process)
            content["path"] = str(model.resolve())
        return Session(process, process.request(content, tensors, [])[0])

    def end(self) -> None:
        for process in (*self._shared.values(), *self._others):
            process.end()


class RuntimeProcess:
    """A confined process in which ONNX Runtime runs.

    Args:
        limits: What it may use.
        readable: The files that it may read.
        worker: Its module.
    """

    def __init__(self, limits: Limits, readable: Sequence[Path], worker: str = WORKER) -> None:
        self.limits = limits
        self._lock = threading.RLock()
        self._reason = ""  # of its end, which whoever asks again is to hear too
        self._process = ConfinedProcess(worker, limits, readable, variables={"ORT_DISABLE_TELEMETRY": "1"})
        self.end = self._process.end

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.ended

    def close(self, session: int) -> None:
        """Forget a session."""
        with contextlib.suppress(ModelError, RuntimeError, OSError, ValueError):
            if not self.ended:
                self.request({"request": "close", "session": session}, {}, [])

    def request(self, content: dict[str, Any], tensors: Tensors, names: Sequence[str]) -> tuple[Any, Tensors]:
        """Send a request, and wait for the answer.

        Raises:
            ModelError: there is none, or it makes no sense.
            RuntimeError: the request failed.
        """
        with self._lock, self._process.deadline() as late:
            try:
                write_message(self._process.requests, {**content, "names": list(names)}, tensors)
                answer, arrays = read_message(self._process.answers, self.limits.memory)
            except (EOFError, BrokenPipeError):
                self._reason = self._reason or self._end_of(late.is_set())
                raise ModelError(self._reason) from None
            except ValueError as error:
                self._process.kill()  # half of a message may be left
                raise ModelError(
                    f"The model gives more than {units.size(self.limits.memory)}, or what is no array."
                ) from error
        if not isinstance(answer, dict):
            raise ModelError("The process that ran the model gave an answer that makes no sense.")
        if "error" in answer:
            raise RuntimeError(str(answer["error"]))
        return answer.get("value"), arrays

    def _end_of(self, late: bool) -> str:
        code = self._process.process.wait()
        if late:
            return (
                f"The model ran longer than {self.limits.timeout:g} s. If it may take longer, say so with "
                "--sandbox-timeout."
            )
        if self._process.overfull.is_set():
            return (
                f"The process that ran the model wrote more than {units.size(self.limits.memory)}. If it may write "
                "as much, say so with --sandbox-memory."
            )
        how = f"by {signal_name(-code)}" if code < 0 else f"with exit code {code}"
        return (
            f"The model ended the process that ran it, {how}. It is damaged, or needs more than "
            f"{units.size(self.limits.memory)} of memory (--sandbox-memory)."
        )
