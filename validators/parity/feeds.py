"""Feeding an ONNX model with its source's tensors, where the two do not take the same.

A model made for ML.NET may take a column each where its source takes one matrix, or the other way round, and
float32 where the source takes float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import DataError
from onnxtool.models.signature import Tensors, TensorSpec, numpy_dtype
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
        arrays = [tensors[name] for name in self.columns]
        array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)
        if self.column is not None:
            array = array[:, self.column : self.column + 1]
        if array.ndim < len(self.spec.shape):
            array = array.reshape(-1, 1)
        return array.astype(numpy_dtype(self.spec.dtype), copy=False)


@dataclass(frozen=True, slots=True)
class Feeds:
    """All inputs of the ONNX model."""

    feeds: tuple[Feed, ...]

    def __call__(self, tensors: Tensors) -> Tensors:
        """The ONNX model's inputs."""
        return {feed.spec.name: feed.tensor(tensors) for feed in self.feeds}

    def rounded(self, tensors: Tensors) -> Tensors:
        """The source's inputs, as exact as the ONNX model gets them: what is compared is the conversion."""
        dtypes = {name: numpy_dtype(feed.spec.dtype) for feed in self.feeds for name in feed.columns}
        return {
            name: tensor.astype(dtypes[name]).astype(tensor.dtype)
            if name in dtypes and tensor.dtype.kind == "f" and tensor.dtype != dtypes[name]
            else tensor
            for name, tensor in tensors.items()
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
    notes += [
        f"Input {feed.spec.name!r} is {feed.spec.dtype} in ONNX: both models got {dtype} rounded to it."
        for feed in feeds
        for dtype in {by_name[name].dtype for name in feed.columns}
        if dtype in PRECISION and dtype != feed.spec.dtype
    ]
    return Feeds(tuple(feeds))


def _columns_of_matrix(source: Sequence[TensorSpec], onnx: Sequence[TensorSpec]) -> list[Feed]:
    if len(source) == 1 and source[0].shape[1:] == (len(onnx),):
        return [Feed(spec, (source[0].name,), column) for column, spec in enumerate(onnx)]
    return []


def _matrices_of_columns(source: Sequence[TensorSpec], onnx: Sequence[TensorSpec]) -> list[Feed]:
    feeds = []
    for spec in onnx:
        columns = tuple(column.name for column in source if _casts(column.dtype, spec.dtype))
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


def _casts(given: str, expected: str) -> bool:
    """Whether a dtype becomes another without loss, but for the rounding of floats."""
    both_float = given in PRECISION and expected in PRECISION
    return given == expected or both_float or (given in _WHOLE and expected == "int64")


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(map(str, specs)) or "none"
