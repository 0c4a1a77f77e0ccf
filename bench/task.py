"""The task of a worker, and its answer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter

from onnxtool.bench.plan import CellPlan
from onnxtool.models.rows.channel import receive, send
from onnxtool.models.signature import Tensors
from onnxtool.models.source import LoadOptions
from onnxtool.reports.model import Cell


@dataclass(frozen=True, slots=True)
class SourceTask:
    """A source model whose own framework is to be measured.

    Attributes:
        source: A path or a `package.module:callable`; a worker cannot be handed a live object.
        options: How it is opened.
    """

    source: str
    options: LoadOptions = field(default_factory=LoadOptions)


@dataclass(frozen=True, slots=True)
class Task:
    """One cell to be measured.

    Attributes:
        plan: The cell; its provider, binding and options are not looked at for a source.
        duration_s: How long runs are timed.
        seed: Seed of the arrivals in the server scenario.
        model: The ONNX file, or the source model.
        inputs: The batches that are run in turn, as `feeds.stacked` has them.
        limit_s: How long runs may be timed to decide the plan's bounds.
    """

    plan: CellPlan
    duration_s: float
    seed: int
    model: str | SourceTask
    inputs: Tensors
    limit_s: float = 0.0

    __pydantic_config__: ClassVar = ConfigDict(arbitrary_types_allowed=True)


_ADAPTER = TypeAdapter(Task)


def write_task(file: BinaryIO, task: Task) -> None:
    """Write a task: its description, then its arrays."""
    model, data = task.model, {}
    if isinstance(model, SourceTask):
        data = model.options.data
        model = replace(model, options=replace(model.options, data={}))
    send(file, _ADAPTER.dump_python(replace(task, model=model, inputs={}), mode="json"), task.inputs)
    send(file, None, data)


def read_task(file: BinaryIO) -> Task:
    """Read what `write_task` wrote."""
    content, inputs = receive(file)
    _, data = receive(file)
    task = replace(_ADAPTER.validate_python(content), inputs=inputs)
    if isinstance(task.model, SourceTask):
        task = replace(task, model=replace(task.model, options=replace(task.model.options, data=data)))
    return task


def write_answer(file: BinaryIO, cell: Cell, samples_ns: NDArray[np.int64]) -> None:
    """Write what was measured: the cell without its latency, and the latency of each query in ns."""
    send(file, cell.model_dump(mode="json"), {"samples_ns": samples_ns})


def read_answer(file: BinaryIO) -> tuple[Cell, NDArray[np.int64]]:
    """Read what `write_answer` wrote.

    Raises:
        ValueError: it is cut short or garbled.
    """
    content, tensors = receive(file)
    if [(name, array.dtype.str, array.ndim) for name, array in tensors.items()] != [("samples_ns", "<i8", 1)]:
        raise ValueError("no samples")
    return Cell.model_validate(content), tensors["samples_ns"]
