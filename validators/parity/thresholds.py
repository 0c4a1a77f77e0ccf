"""The values of a graph's inputs at which its trees decide, followed back through what scales them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxtool.models.onnx.evaluate import attribute

TREES = {"TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"}
_TRANSPARENT = {"Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}

Marks = dict[int, NDArray[np.float64]]
"""Values by the column of a tensor."""


def graph_thresholds(proto: onnx.ModelProto) -> dict[str, Marks]:
    """Thresholds of every tree ensemble, by the graph's input and its column.

    They are followed through nodes that hand values on, scale and shift them, or put columns side by side. A
    threshold on anything else is left out.

    Args:
        proto: The model, with its weights.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    inputs = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in proto.graph.input
        if value.name not in constants
    }
    found: dict[str, Marks] = {}
    for node in proto.graph.node:
        graph = _Graph(makers, constants, inputs, found)
        rows, features, thresholds = "", np.empty(0, dtype=np.int64), np.empty(0)
        if node.op_type in TREES:
            rows, (features, thresholds) = node.input[0], tree_splits(node)
        elif node.op_type == "Greater" and node.input[1] in constants:
            rows, features, thresholds = _table_splits(node, graph)
        marks = {int(f): np.unique(thresholds[features == f]) for f in np.unique(features)}
        _follow(rows, marks, graph)
    return found


def tree_splits(node: onnx.NodeProto) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Feature and threshold of every inner node of an ensemble of trees."""
    features = np.array(attribute(node, "nodes_featureids", ()), dtype=np.int64)
    values = attribute(node, "nodes_values")
    if values is None:
        tensor = attribute(node, "nodes_values_as_tensor") or attribute(node, "nodes_splits")
        values = numpy_helper.to_array(tensor) if tensor is not None else np.zeros(len(features))
    thresholds = np.asarray(values, dtype=np.float64)
    modes = attribute(node, "nodes_modes")
    inner = (
        np.array([mode != b"LEAF" for mode in modes]) if isinstance(modes, list) else np.full(len(features), True)
    )
    return features[inner], thresholds[inner]


class _Graph:
    def __init__(
        self,
        makers: Mapping[str, onnx.NodeProto],
        constants: Mapping[str, NDArray[np.generic]],
        inputs: Mapping[str, list[int]],
        found: dict[str, Marks],
    ) -> None:
        self.makers, self.constants, self.inputs, self.found = makers, constants, inputs, found


def _table_splits(node: onnx.NodeProto, graph: _Graph) -> tuple[str, NDArray[np.int64], NDArray[np.float64]]:
    """Rows, features and thresholds of trees that are written as tables, see `converters.oblivious`; else nothing."""
    gather = graph.makers.get(node.input[0])
    matrix = graph.makers.get(gather.input[0]) if gather is not None and gather.op_type == "Gather" else None
    if gather is None or matrix is None or matrix.op_type != "Transpose" or gather.input[1] not in graph.constants:
        return "", np.empty(0, dtype=np.int64), np.empty(0)
    features, thresholds = (graph.constants[name].ravel() for name in (gather.input[1], node.input[1]))
    return matrix.input[0], features.astype(np.int64), thresholds.astype(np.float64)


def _follow(name: str, marks: Marks, graph: _Graph) -> None:
    if name in graph.inputs:
        known = graph.found.setdefault(name, {})
        for column, values in marks.items():
            known[column] = np.union1d(known.get(column, np.empty(0)), values[np.isfinite(values)])
        return
    node = graph.makers.get(name)
    if node is None:
        return
    if node.op_type in _TRANSPARENT:
        _follow(node.input[0], marks, graph)
    elif node.op_type == "Scaler":
        scale, offset = (
            np.array(attribute(node, key, [value])) for key, value in (("scale", 1.0), ("offset", 0.0))
        )
        _follow(node.input[0], _mapped(marks, lambda v, c: v / _of(scale, c) + _of(offset, c)), graph)
    elif node.op_type in ("Add", "Sub", "Mul", "Div") and node.input[1] in graph.constants:
        operand = graph.constants[node.input[1]].astype(np.float64).reshape(-1)
        undo = {
            "Add": lambda v, c: v - _of(operand, c),
            "Sub": lambda v, c: v + _of(operand, c),
            "Mul": lambda v, c: v / _of(operand, c),
            "Div": lambda v, c: v * _of(operand, c),
        }[node.op_type]
        _follow(node.input[0], _mapped(marks, undo), graph)
    elif node.op_type == "Concat":
        first = 0
        for part in node.input:
            width = graph.inputs.get(part, [0, 0])[-1]
            if not width:
                return  # how many columns come before the rest is not known
            inner = {column - first: values for column, values in marks.items() if first <= column < first + width}
            _follow(part, inner, graph)
            first += width


def _mapped(marks: Marks, undo: object) -> Marks:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return {column: undo(values, column) for column, values in marks.items()}  # type: ignore[operator]


def _of(values: NDArray[np.float64], column: int) -> float:
    return float(values[column if len(values) > 1 else 0])
