"""How many numbers a graph holds for each row, which decides how many rows run at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

from onnxtool.errors import ModelError
from onnxtool.models.onnx.shapes import with_inferred_shapes

_LARGEST_BYTES = 2**28
"""Of operators and their attributes, as a forest has them: to infer shapes of more costs more than it saves."""
_SMALL = 256
"""Elements of a weight that may be a shape, and is kept."""


def widest_per_row(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], rows: int) -> int:
    """The elements of the largest tensor, divided by the rows; tensors of unknown shape are left out.

    A vocabulary of 200,000 words makes a tensor of that width of one column of text.

    Args:
        model: The model, whose weights are not looked at.
        shapes: The shape of each input for some rows.
        rows: How many these are.
    """
    skeleton = _without_weights(model)
    for value in skeleton.graph.input:
        if value.name in shapes and value.type.HasField("tensor_type"):
            dims = [onnx.TensorShapeProto.Dimension(dim_value=size) for size in shapes[value.name]]
            value.type.tensor_type.shape.CopyFrom(onnx.TensorShapeProto(dim=dims))
    for output in skeleton.graph.output:  # what they declare has no sizes, and stands against what is inferred
        output.type.tensor_type.ClearField("shape")
    if skeleton.ByteSize() > _LARGEST_BYTES:
        return 1
    try:
        inferred = with_inferred_shapes(skeleton, values=True)
    except (ModelError, RuntimeError):  # the run says what is wrong with it
        return 1
    # ONNX Runtime's tokenizer stands before it, which ONNX infers no shape for.
    vocabularies = (
        max(attribute.ints, default=0) + 1
        for node in model.graph.node
        if node.op_type == "TfIdfVectorizer"
        for attribute in node.attribute
        if attribute.name == "ngram_indexes"
    )
    widest = rows * max(vocabularies, default=1)
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if sizes and all(size > 0 for size in sizes):
            widest = max(widest, math.prod(sizes))
    return -(-widest // rows)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose larger weights are inputs of their shape."""
    graph = onnx.GraphProto(name=model.graph.name or "graph", node=model.graph.node, output=model.graph.output)
    weights = {tensor.name for tensor in model.graph.initializer}
    graph.input.extend(value for value in model.graph.input if value.name not in weights)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions, graph=graph
    )
