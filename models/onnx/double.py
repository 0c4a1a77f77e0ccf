"""An ONNX graph in double precision: its outputs without rounding to float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxtool.errors import ModelError
from onnxtool.models.onnx.evaluate import evaluate, exposing, intermediate, open_session
from onnxtool.models.onnx.isolated import is_isolated, reference_isolated
from onnxtool.models.onnx.runtime_worker import reference
from onnxtool.models.signature import Tensors

_NARROW = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}


def in_double(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model whose floats are all float64: weights, constants, casts, inputs and outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    _widen(copy.graph)
    return copy


def evaluate_in_double(proto: onnx.ModelProto, feeds: Tensors) -> Tensors:
    """Every tensor of a model by name, in float64, by ONNX's own reference implementation.

    ONNX Runtime has kernels in double precision for some operators that the reference fails on.

    Args:
        proto: The model.
        feeds: A few rows of its inputs: the reference is slow.

    Returns:
        Nothing where neither can run it.
    """
    wide = {name: array.astype(np.float64) if _narrow(array) else array for name, array in feeds.items()}
    double = in_double(proto)
    try:
        run = reference_isolated if is_isolated() else reference
        return run(double.SerializeToString(), wide)
    except Exception:  # the reference raises whatever NumPy does
        try:
            return evaluate(open_session(exposing(double, intermediate(double.graph)), optimized=False), wide)
        except ModelError:
            return {}


def _narrow(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bool:
    return array.dtype.kind in "fV" and array.dtype != np.float64


def _widen(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _NARROW:
            value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen_tensor(attribute.t)
            elif attribute.name in ("to", "dtype") and attribute.i in _NARROW:
                attribute.i = onnx.TensorProto.DOUBLE
            for inner in _graphs(attribute):
                _widen(inner)
        if node.op_type == "Constant" and node.attribute[0].name in ("value_float", "value_floats"):
            value = helper.get_attribute_value(node.attribute[0])
            constant = numpy_helper.from_array(np.array(value, dtype=np.float64))
            node.attribute[0].CopyFrom(helper.make_attribute("value", constant))


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _NARROW:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def _graphs(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    if attribute.type == onnx.AttributeProto.GRAPH:
        yield attribute.g
    elif attribute.type == onnx.AttributeProto.GRAPHS:
        yield from attribute.graphs
