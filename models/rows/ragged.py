"""Rows of unequal lengths, as lists of tokens have: they run in groups of equal lengths.

Such a column is an array of dtype object, whose entries are the arrays of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.models.signature import Tensors

_NUMBERS_OR_TEXT = "biufUS"


def is_ragged(array: NDArray[Any]) -> bool:
    """Whether an array holds an array for each row."""
    return array.dtype == object and array.ndim == 1 and array.size > 0 and isinstance(array[0], np.ndarray)


def from_lists(rows: Sequence[Any]) -> NDArray[Any]:
    """Nested lists as one array, whose rows are arrays of their own where they differ in length.

    Raises:
        ValueError: they differ in more than their lengths, or hold neither numbers nor text.
    """
    try:
        return np.asarray(rows)
    except ValueError:  # NumPy's word for unequal lengths
        if not all(isinstance(row, list | tuple | np.ndarray) for row in rows):
            raise
    entries = [np.asarray(row if len(row) else [], dtype=None if len(row) else np.int64) for row in rows]
    if len({entry.ndim for entry in entries}) != 1 or any(e.dtype.kind not in _NUMBERS_OR_TEXT for e in entries):
        raise ValueError("it holds lists that differ in more than their lengths.")
    found = np.empty(len(entries), dtype=object)
    for place, entry in enumerate(entries):
        found[place] = entry.astype(str).astype(object) if entry.dtype.kind in "US" else entry
    return found


def by_length(data: Tensors) -> list[Tensors]:
    """Rows in groups of equal lengths, the largest group first; all rows in one where none has such a column.

    Args:
        data: Columns, whose first axis counts rows.
    """
    ragged = [array for array in data.values() if is_ragged(array)]
    if not ragged:
        return [data]
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for row in range(len(ragged[0])):
        groups.setdefault(tuple(array[row].shape for array in ragged), []).append(row)
    return [
        {name: np.stack(list(array[rows])) if is_ragged(array) else array[rows] for name, array in data.items()}
        for rows in sorted(groups.values(), key=len, reverse=True)
    ]
