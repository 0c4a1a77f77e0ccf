"""Golden rows: a few of the rows compared, with the source's answers, for runtimes where the source cannot run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, Strict

from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.rows.batches import Batching
from onnxtool.models.signature import Tensors
from onnxtool.models.source import SourceModel
from onnxtool.reports.model import Count, Parity, Record, Tolerance
from onnxtool.validators.parity.feeds import match_inputs
from onnxtool.validators.parity.pairs import Rows, match_outputs

GOLDEN_SCHEMA_VERSION: Literal["2.0"] = "2.0"

Item = Annotated[bool, Strict()] | Annotated[int, Strict()] | Annotated[float, Strict()] | Annotated[str, Strict()]
Value = Item | list[Item]
"""A scalar, or a vector's elements, flat. A float that is not finite is a string."""

_MOST_ROWS = 32
_ELEMENTS = 2**17


class GoldenRow(Record):
    """A row and the source model's outputs for it."""

    inputs: dict[str, Value] = Field(description="Tensor name to value.")
    outputs: dict[str, list[Item]] = Field(description="Tensor name to elements: outputs are always vectors.")


class Golden(Record):
    """Rows with the answers that are expected of the model."""

    schema_version: Literal["2.0"] = GOLDEN_SCHEMA_VERSION
    data: str = Field(description="The data file, or how the rows were made.")
    seed: int | None
    rows_compared: Count = Field(description="Rows that these were chosen from, evenly.")
    shapes: dict[str, list[int]] = Field(description="Tensor name to the shape of one row, whose values are flat.")
    tolerances: dict[str, Tolerance] = Field(description="Output's tensor name to tolerance.")
    rows: list[GoldenRow]


def golden_rows(source: SourceModel, model: OnnxModel, rows: Rows, parity: Parity) -> Golden:
    """Run the source on rows spread evenly over those compared, each on its own.

    Args:
        source: The truth.
        model: The ONNX model, for the names and dtypes of its inputs and outputs.
        rows: What the two were compared on.
        parity: The result, whose tolerances hold here too.
    """
    batching = Batching.of(source.inputs)
    total = batching.count(rows.tensors)
    elements = max(1, sum(tensor.size for tensor in rows.tensors.values()) // total)
    picked = np.unique(np.linspace(0, total - 1, int(np.clip(_ELEMENTS // elements, 2, _MOST_ROWS))).astype(int))
    feeds = match_inputs(source.inputs, model.inputs, [])
    specs = {spec.name: spec for spec in model.outputs}
    accepted = parity.input_rounding is not None and parity.input_rounding.accepted
    ties = parity.ties is not None
    names: dict[str, str] = {}
    shapes: dict[str, list[int]] = {}
    found = []
    for row in picked:
        tensors = batching.rows(rows.tensors, row, row + 1, batching.size)
        answer = source.answer(feeds.as_cast(tensors) if accepted else tensors)
        if ties and any(not _same(answer, other) for other in source.alternatives(tensors)):
            continue  # the ONNX model may give another right answer
        names = names or match_outputs(answer, specs, [])
        answer = {partner: np.asarray(answer[name]) for name, partner in names.items()}
        shapes = shapes or {
            **{name: list(tensor.shape) for name, tensor in feeds(tensors).items()},
            # [n] and [n, 1] count as the same shape.
            **{
                name: list(array.shape) if array.ndim == len(specs[name].shape) else [1] * len(specs[name].shape)
                for name, array in answer.items()
            },
        }
        found.append(
            GoldenRow(
                inputs={name: _value(tensor) for name, tensor in feeds(tensors).items()},
                outputs={name: _elements(array, specs[name].dtype) for name, array in answer.items()},
            )
        )
    tolerances = {output.name: output.tolerance for output in parity.outputs}
    return Golden(
        data=rows.origin,
        seed=rows.seed,
        rows_compared=total,
        shapes=shapes,
        tolerances={partner: tolerances[name] for name, partner in names.items()},
        rows=found,
    )


def _value(tensor: NDArray[Any]) -> Value:
    """A matrix of one element is a scalar, everything else a vector."""
    if tensor.dtype == np.float32:
        items: list[Item] = [
            float(str(item)) for item in tensor.reshape(-1)
        ]  # the shortest number that is this one
    else:
        items = tensor.reshape(-1).tolist()
    return items[0] if tensor.shape == (1, 1) else items


def _elements(answer: NDArray[Any], dtype: str) -> list[Item]:
    """The elements in JSON's type for the output's dtype: a label may be bool in the source, int64 in ONNX."""
    items: list[Item] = answer.reshape(-1).tolist()
    if dtype == "string":
        return [str(item) for item in items]
    if dtype == "bool":
        return [bool(item) for item in items]
    return [int(item) if isinstance(item, bool) else item for item in items]


def _same(one: Tensors, other: Tensors) -> bool:
    return all(
        np.allclose(one[name], other[name])
        if one[name].dtype.kind == "f"
        else np.array_equal(one[name], other[name])
        for name in other
    )
