"""Preparation of a graph for a lower precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from graphlib import TopologicalSorter

import onnx
from onnx import TensorProto, inliner

from onnxtool.errors import ConversionError
from onnxtool.models.onnx.artifact import all_nodes, fits_inline
from onnxtool.models.onnx.shapes import with_inferred_shapes

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators in which networks spend their time, and whose weights are most of a file."""


def prepared(model: onnx.ModelProto, precision: str, operators: Collection[str]) -> onnx.ModelProto:
    """A copy in which each node has a name of its own, and tensors their types.

    Args:
        model: The model, with its weights.
        precision: The name of the precision, for messages.
        operators: Those that gain by the precision.

    Raises:
        ConversionError: none of them has weights in float32, or the model is above 2 GB.
    """
    if not fits_inline(model):
        raise ConversionError(f"--precision {precision} takes no model above 2 GB.")
    copy = inliner.inline_local_functions(model) if model.functions else model
    copy = with_inferred_shapes(copy, values=True)
    weights = {tensor.name for tensor in copy.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    weights |= {
        node.output[0]
        for node in copy.graph.node
        if node.op_type == "Constant"
        and any(entry.name == "value" and entry.t.data_type == TensorProto.FLOAT for entry in node.attribute)
    }
    if not any(node.op_type in operators and weights.intersection(node.input[1:2]) for node in copy.graph.node):
        kinds = Counter(node.op_type for node in copy.graph.node).most_common(5)
        raise ConversionError(
            f"--precision {precision}: there is nothing to make less precise, no {', '.join(sorted(operators))} with "
            f"weights in float32. The model is made of {', '.join(kind for kind, _ in kinds)}."
        )
    taken: set[str] = set()
    for place, node in enumerate(copy.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{place}"
        taken.add(node.name)
    return copy


def float_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of the tensors that are known to be of float32, without weights."""
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    return {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}


def put_in_order(graph: onnx.GraphProto) -> None:
    """Sort nodes, in place, so that each comes after those that it reads: converters add theirs at the end."""
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    read = {
        place: {makers[name] for name in _read(node) if name in makers} - {place}
        for place, node in enumerate(graph.node)
    }
    nodes = [graph.node[place] for place in TopologicalSorter(read).static_order()]
    ordered = onnx.GraphProto(node=nodes)
    graph.ClearField("node")
    graph.node.MergeFrom(ordered.node)


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors that a node reads, those of its subgraphs included."""
    yield from node.input
    for attribute in node.attribute:
        for inner in all_nodes(attribute.g):
            yield from inner.input
