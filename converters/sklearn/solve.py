"""Linear systems in a graph: ONNX has no operator that solves them."""

from __future__ import annotations

import numpy as np

from onnxtool.converters.sklearn.values import Operand, Value


def solve(matrices: Value, size: int, right: Operand | None = None) -> Value:
    """Solve a small symmetric positive definite system for every row, by Gauss and Jordan without pivots.

    Args:
        matrices: Array of shape [batch, size, size].
        size: The number of unknowns; the graph grows with it.
        right: The right-hand sides, [batch, size, 1], or None for ones.

    Returns:
        The solutions, [batch, size, 1].
    """
    ones = matrices.columns([0], axis=2) * 0.0 + 1.0 if right is None else matrices.of(right)
    system = matrices.hstack(ones, axis=2)
    for place in range(size):
        own = np.eye(size)[:, place : place + 1]
        row = system.columns([place], axis=1)
        row = row / row.columns([place], axis=2)
        column = system.columns([place], axis=2) * (1.0 - own)
        system = system * (1.0 - own) - column * row + row * own
    return system.columns([size], axis=2)
