"""Writing nodes into tf2onnx's graph."""

from __future__ import annotations

from typing import Any

import numpy as np


def node(graph: Any, kind: str, *inputs: str, dtype: int, shape: list[int] | None = None, **attrs: Any) -> str:
    """Add a node with one output, of an element type of ONNX's, and return the output's name."""
    shapes = [] if shape is None else [shape]
    return str(graph.make_node(kind, list(inputs), attrs, dtypes=[dtype], shapes=shapes).output[0])


def cast(graph: Any, value: str, dtype: int) -> str:
    """A tensor in another element type."""
    return node(graph, "Cast", value, dtype=dtype, to=dtype)


def constant(graph: Any, value: Any) -> str:
    """Add a constant, and return its name."""
    from tf2onnx.utils import make_name

    return str(graph.make_const(make_name("constant"), np.asarray(value)).output[0])
