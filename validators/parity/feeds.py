"""Feeding an ONNX model with its source's tensors, where the two do not take the same.

A model made for ML.NET may take a column each where its source takes one matrix, or the other way round. And rows
come in a dtype of their own, which the ONNX model's signature makes its caller cast: float64 to float32, mostly. The
source is never given the cast rows in place of the rows, unless the user accepts what the cast costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import DataError
from onnxtool.models.signature import Tensors, TensorSpec, dtype_name, numpy_dtype
from onnxtool.validators.numerics.tolerance import PRECISION

_WHOLE = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")


@dataclass(frozen=True, slots=True)
class Feed:
    """One input of the ONNX model.

    Attributes:
        spec: The input.
        columns: Names of the source's tensors that stand in it side by side.
        column: The one column of the only part that it is, or None for all of it.
    """

    spec: TensorSpec
    columns: tuple[str, ...]
    column: int | None = None

    def tensor(self, tensors: Tensors) -> NDArray[Any]:
        """The input, out of the source's tensors."""
        arrays = [_cast(tensors[name], self.spec) for name in self.columns]
        array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)
        if self.column is not None:
            array = array[:, self.column : self.column + 1]
        if array.ndim < len(self.spec.shape):
            array = array.reshape(-1, 1)
        return array


@dataclass(frozen=True, slots=True)
class Feeds:
    """All inputs of the ONNX model."""

    feeds: tuple[Feed, ...]

    def __call__(self, tensors: Tensors) -> Tensors:
        """The ONNX model's inputs."""
        return {feed.spec.name: feed.tensor(tensors) for feed in self.feeds}

    def as_cast(self, tensors: Tensors) -> Tensors:
        """The source's inputs after the cast that the ONNX model's signature forces, in their own dtype again.

        An array that the cast leaves as it is comes back as the same object.
        """
        specs = {name: feed.spec for feed in self.feeds for name in feed.columns}
        return {
            name: _there_and_back(tensor, specs[name]) if name in specs else tensor
            for name, tensor in tensors.items()
        }

    def changed(self, tensors: Tensors) -> dict[str, str]:
        """The inputs of which that cast changes a value, and how: `float64 to float32`."""
        specs = {name: feed.spec for feed in self.feeds for name in feed.columns}
        return {
            name: f"{dtype_name(tensors[name])} to {specs[name].dtype}"
            for name, tensor in self.as_cast(tensors).items()
            if tensor is not tensors[name]
        }


def match_inputs(source: Sequence[TensorSpec], onnx: Sequence[TensorSpec], notes: list[str]) -> Feeds:
    """Find what of the source's goes into each input of the ONNX model.

    By name, else by position where there are as many; else a matrix of one is the columns of the other, in order.

    Args:
        source: Inputs of the source.
        onnx: Inputs of the ONNX model.
        notes: Notes on inputs that are matched in an unusual way are added.

    Raises:
        DataError: they take different inputs; the message shows both sides.
    """
    by_name = {spec.name: spec for spec in source}
    expected = {spec.name for spec in onnx}
    if onnx and expected <= set(by_name):
        feeds = [Feed(spec, (spec.name,)) for spec in onnx]
        unread = [name for name in by_name if name not in expected]
        if unread:
            notes.append(f"Inputs that the ONNX model does not have: {', '.join(unread)}.")
    elif len(source) == len(onnx):
        feeds = [Feed(second, (first.name,)) for first, second in zip(source, onnx, strict=True)]
        notes.append(
            "Inputs have other names in ONNX, and were matched by position: "
            + ", ".join(f"{first.name} -> {second.name}" for first, second in zip(source, onnx, strict=True))
        )
    else:
        feeds = _columns_of_matrix(source, onnx) or _matrices_of_columns(source, onnx)
    if not feeds or not all(_fits(by_name, feed) for feed in feeds):
        raise DataError(
            f"The two models take different inputs. Source: {_listed(source)}; ONNX: {_listed(onnx)}. "
            "Give the source's inputs with --input, or convert it again."
        )
    return Feeds(tuple(feeds))


def _columns_of_matrix(source: Sequence[TensorSpec], onnx: Sequence[TensorSpec]) -> list[Feed]:
    if len(source) == 1 and source[0].shape[1:] == (len(onnx),):
        return [Feed(spec, (source[0].name,), column) for column, spec in enumerate(onnx)]
    return []


def _matrices_of_columns(source: Sequence[TensorSpec], onnx: Sequence[TensorSpec]) -> list[Feed]:
    feeds = []
    for spec in onnx:
        known = {column.name for column in source}
        named = spec.columns or (spec.name,)
        columns = named if known.issuperset(named) else ()
        columns = columns or tuple(column.name for column in source if _alike(column.dtype, spec.dtype))
        if spec.shape[1:] == (len(columns),):
            feeds.append(Feed(spec, columns))
    taken = [name for feed in feeds for name in feed.columns]
    return feeds if sorted(taken) == sorted(spec.name for spec in source) else []


def _fits(source: dict[str, TensorSpec], feed: Feed) -> bool:
    shape = feed.spec.shape
    for name in feed.columns:
        given = source[name]
        alone = feed.column is None and len(feed.columns) == 1
        same = len(given.shape) == len(shape) or (len(given.shape) < 2 and shape[1:] == (1,))
        if not _casts(given.dtype, feed.spec.dtype) or (alone and not same):
            return False
    return True


def _alike(given: str, expected: str) -> bool:
    """Whether both hold floats, or whole numbers, or the same."""
    both_float = given in PRECISION and expected in PRECISION
    return given == expected or both_float or (given in _WHOLE and expected == "int64")


def _casts(given: str, expected: str) -> bool:
    """Whether rows of an input of a dtype can be passed as another: what rounding costs is measured, not refused.

    Numbers that are whole go in as int64, also where the source takes any number.
    """
    return _alike(given, expected) or (given in PRECISION and expected == "int64")


def _cast(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    # What float32 cannot hold is infinite there, as for a caller.
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(numpy_dtype(spec.dtype), copy=False)


def _there_and_back(tensor: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    if dtype_name(tensor) == spec.dtype or spec.dtype == "string":
        return tensor
    with np.errstate(over="ignore", invalid="ignore"):
        back = _cast(tensor, spec).astype(tensor.dtype)
    return tensor if np.array_equal(back, tensor, equal_nan=tensor.dtype.kind in "fV") else back


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(map(str, specs)) or "none"
