"""Find the axis of each input that counts rows, and cut tensors along it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.models.signature import BATCH, Tensors, TensorSpec


@dataclass(frozen=True, slots=True)
class Batching:
    """The axes of rows in the tensors of a model's inputs.

    Attributes:
        axes: Input to the axis along which its rows lie. An input that is not here goes whole into every batch.
        each: Input to the places along that axis that one row takes, where that is not 1: the first sizes of an
            image [1, ...] and its boxes [6, 4] are fixed, and a row is one image with all of its boxes.
        size: Rows that every batch must have; None where the model takes any number.
    """

    axes: Mapping[str, int]
    each: Mapping[str, int] = field(default_factory=dict)
    size: int | None = None

    @classmethod
    def of(cls, inputs: Sequence[TensorSpec]) -> Batching:
        """Find it from a signature.

        Where all first sizes are fixed, they are one batch. Where some are dynamic and none counts rows, as for a
        graph of nodes and edges, or one is 0, all tensors together are one row.
        """
        shaped = [spec for spec in inputs if spec.shape]
        name = row_dimension(shaped)
        if name is not None:
            return cls({spec.name: spec.shape.index(name) for spec in shaped if name in spec.shape})
        firsts = {spec.name: spec.shape[0] for spec in shaped}
        fixed = {tensor: size for tensor, size in firsts.items() if isinstance(size, int)}
        if len(fixed) < len(firsts) or not all(fixed.values()) or not fixed:
            return WHOLE
        axes = dict.fromkeys(fixed, 0)
        sizes = set(fixed.values())
        return cls(axes, size=sizes.pop()) if len(sizes) == 1 else cls(axes, fixed, size=1)

    def within(self, sizes: Mapping[str, Sequence[object]]) -> Batching:
        """The same for a model that may have fixed what its source leaves open.

        Args:
            sizes: Input of the source to the shape with which the other model takes it.
        """
        if self.size is not None:
            return self
        found = [shape[self.axes[name]] for name, shape in sizes.items() if name in self.axes]
        return replace(self, size=next((size for size in found if isinstance(size, int)), None))

    def count(self, tensors: Tensors) -> int:
        """Number of rows; that of the first input that has any."""
        for name, axis in self.axes.items():
            if name in tensors:
                return int(tensors[name].shape[axis]) // self.each.get(name, 1)
        return 1

    def counts(self, tensors: Tensors) -> set[int]:
        """Numbers of rows of all inputs, which should be the same."""
        return {tensors[name].shape[axis] // self.each.get(name, 1) for name, axis in self.axes.items()}

    def rows(self, tensors: Tensors, start: int, stop: int, size: int | None = None) -> Tensors:
        """Some rows, the last one repeated up to `size`; views where none is."""
        size = stop - start if size is None else size
        if size != stop - start:
            return self.take(tensors, np.minimum(np.arange(start, start + size), stop - 1))
        return {name: self._slice(name, tensor, start, stop) for name, tensor in tensors.items()}

    def take(self, tensors: Tensors, places: NDArray[np.intp]) -> Tensors:
        """A copy of the rows at some places."""
        return {
            name: tensor.take(self._indices(name, places), axis=self.axes[name]) if name in self.axes else tensor
            for name, tensor in tensors.items()
        }

    def join(self, parts: Sequence[Tensors]) -> Tensors:
        """The rows of several tensors, one after another."""
        return {
            name: np.concatenate([part[name] for part in parts], axis=self.axes[name])
            if name in self.axes
            else first
            for name, first in parts[0].items()
        }

    def _slice(self, name: str, tensor: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
        if name not in self.axes:
            return tensor
        each = self.each.get(name, 1)
        return tensor[(slice(None),) * self.axes[name] + (slice(start * each, stop * each),)]

    def _indices(self, name: str, places: NDArray[np.intp]) -> NDArray[np.intp]:
        each = self.each.get(name, 1)
        return places if each == 1 else (places[:, None] * each + np.arange(each)).reshape(-1)


WHOLE = Batching({}, size=1)
"""All tensors together are one row."""


def row_dimension(inputs: Sequence[TensorSpec]) -> str | None:
    """The name of the dimension that counts rows; None where none does, or rows cannot be cut.

    That is `batch`, or else the only dynamic first dimension. Rows cannot be cut where an input has another
    dynamic dimension, as the words of all texts and the positions where each text begins, nor where one has that
    dimension twice, as the edges [n, n] between n nodes.
    """
    dynamic = [spec for spec in inputs if any(isinstance(dim, str) for dim in spec.shape)]
    firsts = {spec.shape[0] for spec in dynamic if isinstance(spec.shape[0], str)}
    named = BATCH in {dim for spec in dynamic for dim in spec.shape}
    if not named and len(firsts) != 1:
        return None
    name = BATCH if named else str(firsts.pop())
    shared = {dim for spec in dynamic if name in spec.shape for dim in spec.shape}
    own = {dim for spec in dynamic if name not in spec.shape for dim in spec.shape if isinstance(dim, str)}
    twice = any(spec.shape.count(name) > 1 for spec in dynamic)
    return name if own <= shared and not twice else None
