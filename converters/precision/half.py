"""Float16, by ONNX Runtime's converter."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxtool.converters.precision.graph import PRODUCTS, float_tensors, put_in_order
from onnxtool.errors import ConversionError, require
from onnxtool.models.onnx.artifact import first_line
from onnxtool.models.onnx.evaluate import evaluate, exposing, open_session
from onnxtool.models.signature import Tensors

OPERATORS = (*PRODUCTS, "Einsum", "GRU", "LSTM", "RNN")
"""Operators whose weights take half the room."""

LARGEST = float(np.finfo(np.float16).max)

HEADROOM = 2.0
"""How much larger than on the rows at hand a number may be on others."""


def to_half(model: onnx.ModelProto, kept: Collection[str]) -> onnx.ModelProto:
    """The model in float16; inputs and outputs stay in float32.

    Args:
        model: As `graph.prepared` makes it.
        kept: Names of nodes that stay in float32, besides those that have no float16.

    Raises:
        ConversionError: ONNX Runtime's converter fails.
    """
    converter = require("onnxruntime.transformers.float16", "cpu")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of weights that are too small or too large: what they do is measured
            half: onnx.ModelProto = converter.convert_float_to_float16(
                copy, keep_io_types=True, node_block_list=[*kept], disable_shape_infer=True
            )
    except Exception as error:  # whatever it may raise
        raise ConversionError(f"--precision fp16: the converter fails: {first_line(error)}") from error
    _join_kept(half, {node.name for node in model.graph.node})
    put_in_order(half.graph)
    return half


def _join_kept(model: onnx.ModelProto, original: Collection[str]) -> None:
    """Connect nodes that stay in float32 directly: the converter rounds between any two."""
    graph = model.graph
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast" and node.name not in original}
    types = {name: helper.get_node_attr_value(node, "to") for name, node in casts.items()}
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        for place, name in enumerate(node.input):
            narrow = casts[name].input[0] if types.get(name) == TensorProto.FLOAT else ""
            if types.get(narrow) == TensorProto.FLOAT16:
                node.input[place] = casts[narrow].input[0]
    while unread := casts.keys() - {name for node in graph.node for name in node.input} - outputs:
        for name in unread:
            graph.node.remove(casts.pop(name))


def blocked() -> frozenset[str]:
    """Operators that the converter leaves in float32."""
    return frozenset(require("onnxruntime.transformers.float16", "cpu").DEFAULT_OP_BLOCK_LIST)


def rounded(model: onnx.ModelProto, kept: Collection[str]) -> onnx.ModelProto:
    """The model in float32, with each weight and each result rounded to float16, but for those of kept nodes.

    That is what a graphics card makes of the float16 model: products of float16 are added up in float32, and each
    result is stored in float16. ONNX Runtime's CPU provider has few kernels for float16 and runs one node after
    another in float32 in between, so that it shows neither the rounding nor an overflow.
    """
    unread = blocked()
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    floats = float_tensors(model)
    lowered = [node for node in copy.graph.node if node.name not in kept and node.op_type not in unread]
    exact = {name for node in copy.graph.node if node not in lowered for name in node.input}
    for tensor in copy.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in exact:
            with np.errstate(over="ignore"):
                half = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        nodes.append(node)
        if node not in lowered:
            continue
        for place, name in enumerate(node.output):
            if name in floats:
                wide, narrow = f"{name}~wide", f"{name}~half"
                node.output[place] = wide
                nodes.append(helper.make_node("Cast", [wide], [narrow], to=TensorProto.FLOAT16))
                nodes.append(helper.make_node("Cast", [narrow], [name], to=TensorProto.FLOAT))
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def overflowing(model: onnx.ModelProto, feeds: Tensors) -> Mapping[str, float]:
    """Nodes that read or write a number that float16 does not hold, with room for rows that are not at hand.

    Args:
        model: As `graph.prepared` makes it.
        feeds: Rows of its inputs.

    Returns:
        By the node's name, the largest finite magnitude.

    Raises:
        ModelError: ONNX Runtime fails on the rows.
    """
    floats = float_tensors(model)
    made = [name for node in model.graph.node for name in node.output if name in floats]
    known = evaluate(open_session(exposing(model, made), optimized=False), feeds) | feeds
    known |= {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    peaks = {
        name: float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
        for name, array in known.items()
        if array.dtype == np.float32
    }
    found = {
        node.name: max((peaks.get(name, 0.0) for name in (*node.input, *node.output)), default=0.0)
        for node in model.graph.node
    }
    return {name: peak for name, peak in found.items() if peak > LARGEST / HEADROOM}
