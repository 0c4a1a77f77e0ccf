"""Golden rows: a few of the rows compared, with the source's answers, for runtimes where the source cannot run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, Strict

from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.rows.batches import Batching
from onnxtool.models.rows.inputs import resized, sizes_of
from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.models.source import SourceModel
from onnxtool.reports.model import Count, Parity, Record, Tolerance
from onnxtool.validators.parity.feeds import match_inputs
from onnxtool.validators.parity.pairs import Rows, match_outputs
from onnxtool.validators.parity.sizes import as_declared

GOLDEN_SCHEMA_VERSION: Literal["2.1"] = "2.1"

Item = Annotated[bool, Strict()] | Annotated[int, Strict()] | Annotated[float, Strict()] | Annotated[str, Strict()]
Value = Item | list[Item]
"""A scalar, or a vector's elements, flat. A float that is not finite is a string."""

_MOST_ROWS = 32
_ELEMENTS = 2**17
_OTHER_SIZES = 4


class GoldenRow(Record):
    """A row and the source model's outputs for it."""

    inputs: dict[str, Value] = Field(description="Tensor name to value.")
    outputs: dict[str, list[Item]] = Field(description="Tensor name to elements: outputs are always vectors.")
    shapes: dict[str, list[int]] = Field(
        default={}, description="Tensor name to shape, of those that have another one in this row."
    )


class Golden(Record):
    """Rows with the answers that are expected of the model."""

    schema_version: Literal["2.1"] = GOLDEN_SCHEMA_VERSION
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
    singly = [batching.rows(rows.tensors, row, row + 1, batching.size) for row in picked]
    for tensors in (*singly, *_other_sizes(singly, as_declared(feeds, source.inputs), parity)):
        answer = source.answer(feeds.as_cast(tensors) if accepted else tensors)
        if ties and any(not _same(answer, other) for other in source.alternatives(tensors)):
            continue  # the ONNX model may give another right answer
        names = names or match_outputs(answer, specs, [])
        answer = {partner: np.asarray(answer[name]) for name, partner in names.items()}
        fed = feeds(tensors)
        own = {
            **{name: list(tensor.shape) for name, tensor in fed.items()},
            # [n] and [n, 1] count as the same shape.
            **{
                name: list(array.shape) if array.ndim == len(specs[name].shape) else [1] * len(specs[name].shape)
                for name, array in answer.items()
            },
        }
        shapes = shapes or own
        found.append(
            GoldenRow(
                inputs={name: _value(tensor) for name, tensor in fed.items()},
                outputs={name: _elements(array, specs[name].dtype) for name, array in answer.items()},
                shapes={name: shape for name, shape in own.items() if shape != shapes[name]},
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


def _other_sizes(rows: Sequence[Tensors], specs: Sequence[TensorSpec], parity: Parity) -> Iterator[Tensors]:
    """The first rows at a few of the other sizes at which both models were compared."""
    for proved in parity.sizes:
        base = dict(sizes_of(specs, rows[0])).get(proved.dimension)
        if base is None:
            continue
        elements = sum(tensor.size for tensor in rows[0].values()) // max(base, 1)
        others = [size for size in proved.compared if size != base and size * elements <= _ELEMENTS // _MOST_ROWS]
        for place in np.unique(np.linspace(0, len(others) - 1, min(len(others), _OTHER_SIZES)).astype(int)):
            for tensors in rows[:2]:
                yield resized(tensors, specs, {proved.dimension: others[place]})


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
