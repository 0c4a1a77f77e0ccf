"""Feature selection: the chosen columns, whichever they are.

skl2onnx 1.20 tests `any(indices)` where it means "is anything selected", so that a selection of the first
column alone becomes a model that ONNX Runtime refuses.
"""

from __future__ import annotations

from typing import Any

from onnx import TensorProto

from onnxtool.converters.sklearn.graph import Graph
from onnxtool.errors import ConversionError, require

SELECTORS = (
    "GenericUnivariateSelect", "RFE", "RFECV", "SelectFdr", "SelectFpr", "SelectFromModel", "SelectFwe",
    "SelectKBest", "SelectPercentile", "SequentialFeatureSelector", "VarianceThreshold",
)  # fmt: skip


def register() -> None:
    """Replace skl2onnx's converters for this family."""
    update = require("skl2onnx", "sklearn").update_registered_converter
    module = require("sklearn.feature_selection", "sklearn")
    for name in SELECTORS:
        update(getattr(module, name), f"Sklearn{name}", _shapes, _convert)


def _convert(scope: Any, operator: Any, container: Any) -> None:
    concatenate = require("skl2onnx.operator_converters.common", "sklearn").concatenate_variables
    chosen = operator.raw_operator.get_support(indices=True).tolist()
    if not chosen:
        raise ConversionError(f"{type(operator.raw_operator).__name__} selects no column, so nothing is left.")
    graph = Graph(scope, container)
    rows = concatenate(scope, operator.inputs, container)
    places = graph.constant(TensorProto.INT64, chosen)
    graph.node("Gather", [rows, places], operator.outputs[0].full_name, axis=1)


def _shapes(operator: Any) -> None:
    rows = operator.inputs[0].get_first_dimension()
    kept = len(operator.raw_operator.get_support(indices=True))
    operator.outputs[0].set_type(type(operator.inputs[0].type)([rows, kept]))
