"""Categorical columns of pandas: the ONNX model takes the categories, and gives the trees their codes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxtool.converters.framework import Conversion
from onnxtool.converters.sklearn.graph import ML
from onnxtool.models.signature import BATCH, TensorSpec, numpy_dtype

MATRIX = "codes_and_numbers"


def of_columns(source: Any, convert: Callable[[Any], Conversion]) -> Conversion:
    """Convert an ensemble whose rows have categories, an input a column.

    A category that training has not seen goes the way of a missing one, as in LightGBM; XGBoost refuses it.

    Args:
        source: A `BoostingModel` with categories.
        convert: Converts a source with the inputs that it has.
    """
    wide = any(spec.dtype in ("float64", "int64") and spec.name in source.numbers for spec in source.inputs)
    matrix = copy.copy(source)
    matrix.inputs = (TensorSpec(MATRIX, "float64" if wide else "float32", (BATCH, len(source.inputs))),)
    conversion = convert(matrix)
    _encode(conversion.model, source)
    return conversion


def _encode(model: onnx.ModelProto, source: Any) -> None:
    """Replace, in place, the one input of a model by an input a column."""
    graph = model.graph
    element = graph.input[0].type.tensor_type.elem_type
    del graph.input[:]
    nodes, columns = [], []
    for place, spec in enumerate(source.inputs):
        given = helper.np_dtype_to_tensor_dtype(numpy_dtype(spec.dtype))
        graph.input.append(helper.make_tensor_value_info(spec.name, given, list(spec.shape)))
        name = spec.name
        if place in source.categories:
            name, number = f"{spec.name}_code", spec.name
            if given != TensorProto.STRING:
                number = f"{spec.name}_single"
                nodes.append(helper.make_node("Cast", [spec.name], [number], to=TensorProto.FLOAT))
            nodes.append(_codes(number, name, source.categories[place], given == TensorProto.STRING))
            given = TensorProto.FLOAT
        columns.append(f"{name}_as_number" if given != element else name)
        if given != element:
            nodes.append(helper.make_node("Cast", [name], [columns[-1]], to=element))
    nodes.append(helper.make_node("Concat", columns, [MATRIX], axis=1))
    for node in reversed(nodes):
        graph.node.insert(0, node)


def _codes(given: str, made: str, known: list[Any], text: bool) -> onnx.NodeProto:
    """The code of each category, NaN for what is none of them."""
    keys: dict[str, Any] = (
        {"keys_strings": list(map(str, known))} if text else {"keys_floats": list(map(float, known))}
    )
    codes = np.arange(float(len(known))).tolist()
    return helper.make_node(
        "LabelEncoder", [given], [made], domain=ML, values_floats=codes, default_float=float("nan"), **keys
    )
