"""A source model that is opened, run and converted in a separate, confined process."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import onnx
from pydantic import TypeAdapter, ValidationError

from onnxtool.errors import ModelError, SourceError
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.rows.channel import read_message, write_message
from onnxtool.models.rows.domain import Domain
from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.models.source import LoadOptions, SourceModel, Step, files_of
from onnxtool.models.torch.hugging_face import base_of
from onnxtool.opening.messages import (
    ANSWER,
    CONVERTED,
    OPTIONS,
    SPECS,
    Description,
    PlainDomain,
    Request,
    error_class,
    group_of,
    joined,
)
from onnxtool.process import last_line
from onnxtool.reports import units
from onnxtool.sandbox.launch import UNCONFINED, ConfinedProcess
from onnxtool.sandbox.limits import Limits
from onnxtool.system import signal_name

if TYPE_CHECKING:
    from onnxtool.converters.framework import ConvertOptions

T = TypeVar("T")

log = logging.getLogger("onnxtool")

_DOMAINS = TypeAdapter(dict[str, PlainDomain])
_RUNS = TypeAdapter(list[list[tuple[str, str]]])
_TEXTS = TypeAdapter(list[str])
_COUNT = TypeAdapter(int)
_EFFECTS = TypeAdapter(dict[str, str])

_LONGEST, _MOST_NOTES = 500, 100
"""Characters of a warning, and notes, that are kept of a process which may be anybody's."""

_DOING: dict[Request, str] = {"confinement": "open it", "open": "open it", "convert": "convert it"}
"""The action of a request, for messages; all other requests run the model."""


class SandboxedSource(SourceModel):
    """A source model of which arrays and ONNX come back, and no code.

    It ends, and its files go, when this object does.

    Attributes:
        limits: What its process may use.
    """

    model = None

    def __init__(self, source: str, options: LoadOptions, limits: Limits) -> None:
        self.limits = limits
        self.notes: list[str] = []
        self._source = source
        self._lock = threading.Lock()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = ConfinedProcess(
            "onnxtool.worker",
            limits,
            [*files_of(source, options), *([base] if (base := base_of(Path(source), options.base)) else [])],
            log=self._log,
            variables={"JOBLIB_MULTIPROCESSING": "0"},  # no processes in there
        )
        lacking = self._checked(_TEXTS.validate_python, self._request("confinement", {}, {})[0])
        if lacking:
            log.warning("%s is opened in a sandbox that is incomplete here: %s.", source, "; ".join(lacking))
        sent = OPTIONS.dump_python(replace(options, data={}, limits=None), mode="json")
        content, _ = self._request("open", {"source": source, "options": sent}, options.data)
        found = self._checked(Description.model_validate, content)
        self.framework, self.framework_version = found.framework, found.framework_version
        self.inputs, self.roles, self.any_number = found.inputs, found.roles, found.any_number
        self._rows_as = found.rows_as
        self.path = Path(found.path) if found.path else None
        self.saved_by, self.bounds = found.saved_by, found.bounds
        self.notes += [*found.notes, *(f"The source was not wholly confined: {lack}." for lack in lacking)]
        self._kind, self._classes = found.kind, found.classes

    @property
    def kind(self) -> str:
        """The kind of model, for display."""
        return self._kind

    @property
    def rows_as(self) -> tuple[TensorSpec, ...]:
        """The inputs in the dtypes in which rows come in production; see `SourceModel`."""
        return self._rows_as

    @property
    def classes(self) -> tuple[tuple[str, ...], ...]:
        """Names of the classes; see `SourceModel`."""
        return self._classes

    def predict(self, tensors: Tensors) -> Tensors:
        """Run it; see `SourceModel`."""
        return self._request("predict", {}, tensors)[1]

    def answers(self, batches: Sequence[Tensors]) -> list[Tensors]:
        """Run it on one batch after the other; see `SourceModel`."""
        joined_batches = joined(**{str(place): batch for place, batch in enumerate(batches)})
        effects, arrays = self._request("answers", {"batches": len(batches)}, joined_batches)
        self.effects = self._checked(_EFFECTS.validate_python, effects)
        return [group_of(arrays, str(place)) for place in range(len(batches))]

    def alternatives(self, tensors: Tensors) -> list[Tensors]:
        """Its other right answers; see `SourceModel`."""
        count, arrays = self._request("alternatives", {}, tensors)
        return [group_of(arrays, str(place)) for place in range(self._checked(_COUNT.validate_python, count))]

    def in_double(self, tensors: Tensors) -> Tensors | None:
        """Run it in float64; see `SourceModel`."""
        can, found = self._request("in_double", {}, tensors)
        return found if can else None

    def steps(self, tensors: Tensors) -> Iterator[Step]:
        """The outputs of its parts; see `SourceModel`."""
        yield from self.step_runs([tensors])[0]

    def step_runs(self, batches: Sequence[Tensors]) -> list[list[Step]]:
        """The steps of one batch after the other; see `SourceModel`."""
        joined_batches = joined(**{str(place): batch for place, batch in enumerate(batches)})
        answer, arrays = self._request("steps", {"batches": len(batches)}, joined_batches)
        runs = self._checked(_RUNS.validate_python, answer)
        values = iter(arrays.values())
        return [[Step(name, kind, next(values)) for name, kind in run] for run in runs]

    def domains(self) -> Mapping[str, Domain]:
        """The values that each input takes; see `SourceModel`."""
        return self._domains

    @cached_property
    def _domains(self) -> Mapping[str, Domain]:
        found = self._checked(_DOMAINS.validate_python, self._request("domains", {}, {})[0])
        return {name: plain.domain() for name, plain in found.items()}

    def convert(self, example: Tensors, options: ConvertOptions) -> tuple[onnx.ModelProto, list[str]]:
        """Convert it; see `Framework.convert`.

        Returns:
            The model, and what was chosen on the way.
        """
        convert_content = {
            "opset": options.opset,
            "target": options.target,
            "inputs": SPECS.dump_python(options.inputs, mode="json"),
            "inexact_rows": options.inexact_rows,
        }
        choices, _ = self._request("convert", convert_content, joined(example=example, rows=options.rows))
        with tempfile.TemporaryDirectory(prefix="onnxtool-answer-") as folder:
            model = self._take_answer(Path(folder) / ANSWER).load()
        return model, self._checked(_TEXTS.validate_python, choices)

    def _take_answer(self, folder: Path) -> OnnxModel:
        """What it has converted to, moved to where it can change nothing any more of what is looked at here."""
        try:
            (self._process.folder / ANSWER).rename(folder)
            plain = stat.S_ISDIR(folder.lstat().st_mode)
            found = [entry.stat(follow_symlinks=False) for entry in os.scandir(folder)] if plain else []
        except OSError as error:
            raise self._garbled() from error
        if not found or not all(
            stat.S_ISREG(entry.st_mode) for entry in found
        ):  # a link leads out, a pipe never ends
            raise self._garbled()
        if sum(entry.st_size for entry in found) > self.limits.memory:
            raise SourceError(
                f"{self._source} converts to more than {units.size(self.limits.memory)}. If it may be as large, "
                "say so with --sandbox-memory."
            )
        try:
            return OnnxModel.read(folder / CONVERTED)
        except ModelError as error:
            raise self._garbled() from error

    def _request(self, request: Request, content: Mapping[str, object], tensors: Tensors) -> tuple[Any, Tensors]:
        with self._lock, self._process.deadline() as late:
            try:
                write_message(self._process.requests, {"request": request, **content}, tensors)
                answer, arrays = read_message(self._process.answers, self.limits.memory)
            except (EOFError, BrokenPipeError):
                raise SourceError(self._end_of(request, late.is_set())) from None
            except ValueError as error:
                raise self._garbled() from error
        if not isinstance(answer, dict):
            raise self._garbled()
        self._note(self._checked(_TEXTS.validate_python, answer.get("warnings", [])))
        if (name := answer.get("error")) is None:
            return answer.get("value"), arrays
        message = str(answer.get("message"))
        if name == "MemoryError":
            raise SourceError(
                f"{self._source} needs more than {units.size(self.limits.memory)} of memory to "
                f"{_DOING.get(request, 'run')}. If it may have more, say so with --sandbox-memory."
            )
        if kind := error_class(str(name)):
            raise kind(message)
        raise SourceError(
            f"{self._source}: the attempt to {_DOING.get(request, 'run it')} failed with "
            f"{last_line(message) or 'no message'}. The file is damaged, or holds what onnxtool does not expect. If "
            "you trust it, --no-sandbox shows where."
        ) from RuntimeError(message)

    def _note(self, warnings: Sequence[str]) -> None:
        """Keep for the report what was warned of, each once."""
        for text in warnings:
            note = f"Warning of its process: {' '.join(text.split())[:_LONGEST]}"
            if note not in self.notes and len(self.notes) < _MOST_NOTES:
                self.notes.append(note)

    def _end_of(self, request: Request, late: bool) -> str:
        """The reason why there is no answer."""
        doing = _DOING.get(request, "run it")
        code = self._process.process.wait()
        if late:
            return (
                f"{self._source}: it took more than {self.limits.timeout:g} s to {doing}. "
                "If it may take longer, say so with --sandbox-timeout."
            )
        if self._process.overfull.is_set():
            return (
                f"{self._source}: its process wrote more than {units.size(self.limits.memory)} to {doing}. "
                "If it may write as much, say so with --sandbox-memory."
            )
        if code == UNCONFINED:
            return f"{self._source} was not opened. {self._last_words()} --sandbox=require needs all of it."
        how = f"was ended by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        words = self._last_words()
        last_words = f" Its last words: {words}" if words else ""
        return (
            f"{self._source}: the process that was to {doing} {how}. The file is damaged, or needs more than "
            f"{units.size(self.limits.memory)} of memory (--sandbox-memory).{last_words}"
        )

    def _last_words(self) -> str:
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 4096))
        return (last_line(self._log.read().decode(errors="replace")) or "")[:300]

    def _checked(self, validate: Callable[[Any], T], content: object) -> T:
        try:
            return validate(content)
        except ValidationError as error:
            raise self._garbled() from error

    def _garbled(self) -> SourceError:
        return SourceError(
            f"{self._source}: its process gave an answer that makes no sense. Do not trust the file."
        )
