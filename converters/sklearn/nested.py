"""Estimators inside estimators: the inner one is converted on its own, and its graph goes into the outer one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import TensorProto

from onnxtool.converters.sklearn.values import Frame, Input, Value
from onnxtool.models.signature import BATCH, TensorSpec
from onnxtool.models.source import LoadOptions


def answers_of(model: Any, rows: Value, *, raw: bool = False) -> dict[str, Value]:
    """An estimator's outputs for rows.

    Args:
        model: Fitted, of any class that converts.
        rows: A matrix in either precision, or a data frame, which the estimator sees as it is.
        raw: Whether the probabilities are to be what their softmax is taken of.

    Returns:
        Its outputs under the names of `SklearnModel`, numbers in double precision.

    Raises:
        ConversionError: the estimator has no conversion.
    """
    from onnxtool.converters.sklearn import convert_registered
    from onnxtool.models.sklearn import SklearnModel

    inputs = _inputs(model, rows)
    source = SklearnModel(model, LoadOptions(inputs=tuple(one.spec for one in inputs)))
    container = rows.graph.container
    inner = convert_registered(source, container.target_opset_any_domain("")).model
    if raw:
        _without_softmax(inner.graph)
    names = _fresh_names(inner.graph, rows) | {one.spec.name: one.name for one in inputs}
    for tensor in inner.graph.initializer:
        tensor.name = names[tensor.name]
        container.initializers.append(tensor)
    for node in inner.graph.node:
        _rename(node, names)
        container.nodes.append(node)
    for entry in inner.opset_import:
        container.node_domain_version_pair_sets.add((entry.domain, entry.version))
    found = {}
    for output in inner.graph.output:
        value = Value(rows.graph, names[output.name], rows.narrow)
        floats = output.type.tensor_type.elem_type in (TensorProto.FLOAT, TensorProto.DOUBLE)
        found[output.name] = value.double() if floats else value
    return found


def _without_softmax(graph: onnx.GraphProto) -> None:
    """Leave the softmax out that makes the probabilities."""
    makers = {name: node for node in graph.node for name in node.output}
    node = makers["probabilities"]
    while node.op_type in ("Identity", "Cast"):
        node = makers[node.input[0]]
    transforms = [one for one in node.attribute if one.name == "post_transform" and one.s == b"SOFTMAX"]
    if node.op_type == "Softmax":
        node.op_type = "Identity"
        del node.attribute[:]
    elif transforms:
        transforms[0].s = b"NONE"
    else:
        raise AssertionError(f"{node.op_type} makes the probabilities.")


def _inputs(model: Any, rows: Value) -> Sequence[Input]:
    if isinstance(rows, Frame):
        return rows.inputs
    dtype = "float64" if rows.element == TensorProto.DOUBLE else "float32"
    return [Input(TensorSpec("X", dtype, (BATCH, int(model.n_features_in_))), rows.name)]


def _fresh_names(graph: onnx.GraphProto, rows: Value) -> dict[str, str]:
    def fresh(name: str) -> str:
        # Not the name itself: the outer model's outputs are still to get theirs.
        return str(rows.graph.scope.get_unique_variable_name(f"inner_{name}"))

    names = {tensor.name: fresh(tensor.name) for tensor in graph.initializer}
    return names | {name: fresh(name) for node in graph.node for name in node.output if name}


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Give a node's tensors, in its branches and bodies too, their new names; inner names stay."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    node.name = ""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            for inner in attribute.g.node:
                _rename(inner, names)
