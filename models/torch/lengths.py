"""Axes of a module's inputs that may have other sizes than those of its owner's rows.

Rows show one length, and it is mostly not all that the module takes: a text model gets tokens of any number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from onnxtool.errors import OnnxtoolError
from onnxtool.models.signature import Tensors, TensorSpec

_MOST_RANK = 3
"""Beyond are images, whose size is part of what a network was trained for, and videos."""


def with_open_lengths(
    specs: Sequence[TensorSpec], rows: Tensors, run: Callable[[Tensors], object]
) -> tuple[TensorSpec, ...]:
    """The inputs with a name for each axis at which the module runs with one place less, and with one more.

    Axes of several inputs at the same place and of the same size belong together, as those of tokens and their mask.

    Args:
        specs: The inputs, with the sizes of the rows.
        rows: The rows.
        run: Runs the module on rows; it raises for what the module does not take.
    """
    few = {spec.name: rows[spec.name][:2] for spec in specs}
    found = {spec.name: list(spec.shape) for spec in specs}
    places = [
        (axis, size)
        for spec in specs
        if len(spec.shape) <= _MOST_RANK and not spec.columns
        for axis, size in enumerate(spec.shape)
        if axis and isinstance(size, int) and size > 1
    ]
    for axis, size in dict.fromkeys(places):
        group = [spec.name for spec in specs if len(spec.shape) > axis and spec.shape[axis] == size]
        if all(
            _runs({**few, **{name: _cut(few[name], axis, other) for name in group}}, run)
            for other in (size - 1, size + 1)
        ):
            name = "length" if not any("length" in shape for shape in found.values()) else f"length_{axis}_{size}"
            for member in group:
                found[member][axis] = name
    return tuple(replace(spec, shape=tuple(found[spec.name])) for spec in specs)


def _cut(
    array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], axis: int, size: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """The rows with an axis of another size, its values cut or repeated."""
    return array.take(np.arange(size) % array.shape[axis], axis)


def _runs(rows: Tensors, run: Callable[[Tensors], object]) -> bool:
    try:
        run(rows)
    except OnnxtoolError:
        return False
    return True
