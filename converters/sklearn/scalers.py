"""Scalers that round where scikit-learn rounds.

A tree behind a scaler compares with thresholds that lie between scaled training rows, so one unit in the last
place can send a row the other way. scikit-learn computes `X *= scale` on float32 rows with double constants:
each operation in double precision, its result rounded to float32. So do these; skl2onnx's constants are
float32, or the division a product with the inverse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from onnxtool.converters.sklearn.graph import Graph, is_double
from onnxtool.errors import require


def register() -> None:
    """Replace skl2onnx's converters for this family."""
    update = require("skl2onnx", "sklearn").update_registered_converter
    shapes = require("skl2onnx.shape_calculators.scaler", "sklearn").calculate_sklearn_scaler_output_shapes
    preprocessing = require("sklearn.preprocessing", "sklearn")
    for name in OPERATIONS:
        update(getattr(preprocessing, name), f"Sklearn{name}", shapes, _convert)


OPERATIONS: dict[str, Callable[[Any], dict[str, NDArray[Any] | None]]] = {
    "MinMaxScaler": lambda s: {"Mul": s.scale_, "Add": s.min_},
    "MaxAbsScaler": lambda s: {"Div": s.scale_},
    "RobustScaler": lambda s: {"Sub": s.center_, "Div": s.scale_},
}
"""What each scaler does to its rows, in order; None is left out."""


def _convert(scope: Any, operator: Any, container: Any) -> None:
    types = require("skl2onnx.common.data_types", "sklearn")
    concatenate = require("skl2onnx.operator_converters.common", "sklearn").concatenate_variables
    scaler = operator.raw_operator
    graph = Graph(scope, container)
    name = graph.node("Cast", concatenate(scope, operator.inputs, container), to=TensorProto.DOUBLE)
    rounds = isinstance(operator.inputs[0].type, types.FloatTensorType)  # whole numbers stay double, as there
    for position, (kind, values) in enumerate(OPERATIONS[type(scaler).__name__](scaler).items()):
        if values is None:
            continue
        if position and rounds:
            name = graph.node("Cast", graph.node("Cast", name, to=TensorProto.FLOAT), to=TensorProto.DOUBLE)
        constant = graph.constant(TensorProto.DOUBLE, np.asarray(values, dtype=float).tolist())
        name = graph.node(kind, [name, constant])
    if getattr(scaler, "clip", False):
        low, high = getattr(scaler, "feature_range", (-1.0, 1.0))
        name = graph.node("Max", [name, graph.constant(TensorProto.DOUBLE, [float(low)])])
        name = graph.node("Min", [name, graph.constant(TensorProto.DOUBLE, [float(high)])])
    element = TensorProto.DOUBLE if is_double(operator) else TensorProto.FLOAT
    graph.node("Cast", name, operator.outputs[0].full_name, to=element)
