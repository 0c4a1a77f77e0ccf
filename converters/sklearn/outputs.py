"""Giving a converted model the inputs and outputs that its source has: their names, order, dtypes and shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxtool.errors import ConversionError
from onnxtool.models.signature import TensorSpec, numpy_dtype


def rename_inputs(model: onnx.ModelProto, specs: Sequence[TensorSpec]) -> None:
    """Give the inputs, in place, the names that the source's have; skl2onnx replaces what is no identifier.

    Args:
        model: What the converter made.
        specs: The source's inputs, in the converter's order.
    """
    names = {value.name: spec.name for value, spec in zip(model.graph.input, specs, strict=True)}
    if all(old == new for old, new in names.items()):
        return
    _free_names(model.graph, [new for old, new in names.items() if old != new and new not in names])
    _replace(model.graph, names)
    for value in model.graph.input:
        value.name = names[value.name]


def merged(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """One matrix for several inputs of numbers, and one for those of text."""
    dtypes = {spec.dtype for spec in specs}
    if "string" in dtypes and len(dtypes) > 1:
        return specs
    dtype = dtypes.pop() if len(dtypes) == 1 else "float64" if "float64" in dtypes else "float32"
    return (TensorSpec("merged_columns", dtype, (specs[0].shape[0], len(specs))),)


def split_input(model: onnx.ModelProto, specs: Sequence[TensorSpec]) -> None:
    """Replace, in place, the one input of a model by an input a column."""
    graph = model.graph
    matrix = graph.input[0]
    element = matrix.type.tensor_type.elem_type
    del graph.input[:]
    nodes, columns = [], []
    for spec in specs:
        given = helper.np_dtype_to_tensor_dtype(numpy_dtype(spec.dtype))
        graph.input.append(helper.make_tensor_value_info(spec.name, given, list(spec.shape)))
        columns.append(spec.name)
        if given != element:
            columns[-1] = f"{spec.name}_as_{TensorProto.DataType.Name(element).lower()}"
            nodes.append(helper.make_node("Cast", [spec.name], [columns[-1]], to=element))
    nodes.append(helper.make_node("Concat", columns, [matrix.name], axis=1))
    for node in reversed(nodes):
        graph.node.insert(0, node)


def shape_outputs(model: onnx.ModelProto, source: Any, final: Any) -> None:
    """Rework the outputs in place.

    Converters differ in what they give: a label of shape [batch], [batch, 1] or [1, batch]; scores of a binary
    classifier in one column or in two; a sequence of probabilities for several targets.

    Args:
        model: What the converter made.
        source: The `SklearnModel` or `BoostingModel`, for the names of its outputs.
        final: The estimator that gives the outputs: the last step, or what a search has found.

    Raises:
        ConversionError: the converter gives fewer outputs than the source has.
    """
    graph = model.graph
    given = list(graph.output)
    expected = list(source.outputs)
    _free_names(graph, expected)
    del graph.output[:]
    classes = getattr(final, "classes_", None)
    targets = len(classes) if isinstance(classes, list) else 1
    if isinstance(classes, list) and len(expected) > 1 and not hasattr(final, "order_"):
        _label(graph, given[0], expected[0], targets)
        _split_targets(graph, given[1], expected[1:], [len(one) for one in classes])
        return
    if len(given) < len(expected):
        kind = type(final).__name__
        raise ConversionError(f"The converter for {kind} gives {len(given)} of the outputs {', '.join(expected)}.")
    for value, name in zip(given, expected, strict=False):
        if name.startswith("label"):
            _label(graph, value, name, targets)
        elif name.startswith("scores"):
            _scores(graph, value, name, _score_columns(final))
        elif name.startswith("prediction"):
            _reshape(graph, value, name, (-1, _regression_targets(final, value)))
        else:
            _rename(graph, value, name)


def describe_contributions(model: onnx.ModelProto, final: Any) -> None:
    """Name the terms whose contributions a model gives, and what they are added to, in its metadata, as JSON."""
    if not hasattr(final, "term_names_"):
        return
    described = {
        "onnxtool.contributions.terms": list(map(str, final.term_names_)),
        "onnxtool.contributions.intercept": np.atleast_1d(final.intercept_).tolist(),
        "onnxtool.contributions.link": str(final.link_),
    }
    for key, value in described.items():
        model.metadata_props.add(key=key, value=json.dumps(value))


def _score_columns(model: Any) -> int:
    classes = getattr(model, "classes_", None)
    if classes is None or len(classes) == 2:
        return 1
    votes = getattr(model, "decision_function_shape", "ovr") == "ovo"
    return len(classes) * (len(classes) - 1) // 2 if votes else len(classes)


def _regression_targets(final: Any, value: onnx.ValueInfoProto) -> int:
    """The number of targets of a regressor; the shape that a converter declares is not always right."""
    counted = getattr(final, "n_outputs_", None)
    if counted is not None:
        return int(counted)
    coefficients = getattr(final, "coef_", None)
    if getattr(coefficients, "ndim", 0) == 2:
        return int(coefficients.shape[0])  # type: ignore[union-attr]  # two-dimensional, so no None
    dims = value.type.tensor_type.shape.dim
    return dims[1].dim_value if len(dims) == 2 and dims[1].dim_value > 0 else 1


def _free_names(graph: onnx.GraphProto, expected: Sequence[str]) -> None:
    """Rename what inside the graph has a name that an output is to get."""
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    taken |= {value.name for value in (*graph.input, *graph.output)} | {value.name for value in graph.initializer}
    fresh = {}
    for name in set(expected) & taken:
        other = f"{name}_raw"
        while other in taken:
            other += "_"
        fresh[name] = other
    _replace(graph, fresh)
    for value in (*graph.output, *graph.value_info):
        value.name = fresh.get(value.name, value.name)
    for tensor in graph.initializer:
        tensor.name = fresh.get(tensor.name, tensor.name)


def _label(graph: onnx.GraphProto, value: onnx.ValueInfoProto, name: str, targets: int) -> None:
    kind = value.type.tensor_type.elem_type
    if kind not in (TensorProto.INT64, TensorProto.STRING):
        graph.node.append(helper.make_node("Cast", [value.name], [f"{name}_int64"], to=TensorProto.INT64))
        value.name, value.type.tensor_type.elem_type = f"{name}_int64", TensorProto.INT64
    if targets > 1:
        _reshape(graph, value, name, (-1, targets))
    elif any(value.name in node.output and _gives_flat_labels(node) for node in graph.node):
        _rename(graph, value, name)
    else:
        _reshape(graph, value, name, (-1,))


def _gives_flat_labels(node: onnx.NodeProto) -> bool:
    """Whether labels are of shape [batch] by the operator's definition."""
    flat = any(attribute.name == "keepdims" and not attribute.i for attribute in node.attribute)
    return node.op_type.endswith("Classifier") or (node.op_type == "ArgMax" and flat)


def _scores(graph: onnx.GraphProto, value: onnx.ValueInfoProto, name: str, columns: int) -> None:
    if columns > 1:
        _rename(graph, value, name)
        return
    # Of a binary classifier's two columns the second is the decision function, the first its negative.
    dims = value.type.tensor_type.shape.dim
    if len(dims) == 2:
        graph.initializer.append(numpy_helper.from_array(np.array([-1], dtype=np.int64), f"{name}_last"))
        node = helper.make_node("Gather", [value.name, f"{name}_last"], [f"{name}_column"], axis=1)
        graph.node.append(node)
        value.name = f"{name}_column"
    _reshape(graph, value, name, (-1, 1))


def _split_targets(
    graph: onnx.GraphProto, value: onnx.ValueInfoProto, names: Sequence[str], classes: Sequence[int]
) -> None:
    """One tensor of probabilities a target, from a sequence or from a stack of them."""
    is_sequence = value.type.WhichOneof("value") == "sequence_type"
    tensor = value.type.sequence_type.elem_type.tensor_type if is_sequence else value.type.tensor_type
    for place, (name, count) in enumerate(zip(names, classes, strict=True)):
        graph.initializer.append(numpy_helper.from_array(np.array(place, dtype=np.int64), f"{name}_place"))
        if is_sequence:
            graph.node.append(helper.make_node("SequenceAt", [value.name, f"{name}_place"], [name]))
        else:
            graph.initializer.append(numpy_helper.from_array(np.arange(count), f"{name}_classes"))
            graph.node.append(helper.make_node("Gather", [value.name, f"{name}_place"], [f"{name}_all"], axis=0))
            graph.node.append(helper.make_node("Gather", [f"{name}_all", f"{name}_classes"], [name], axis=1))
        graph.output.append(helper.make_tensor_value_info(name, tensor.elem_type, [None, count]))


def _reshape(graph: onnx.GraphProto, value: onnx.ValueInfoProto, name: str, shape: tuple[int, ...]) -> None:
    graph.initializer.append(numpy_helper.from_array(np.array(shape, dtype=np.int64), f"{name}_shape"))
    graph.node.append(helper.make_node("Reshape", [value.name, f"{name}_shape"], [name]))
    dims = [None if dim < 0 else dim for dim in shape]
    graph.output.append(helper.make_tensor_value_info(name, value.type.tensor_type.elem_type, dims))


def _rename(graph: onnx.GraphProto, value: onnx.ValueInfoProto, name: str) -> None:
    _replace(graph, {value.name: name})
    value.name = name
    graph.output.append(value)


def _replace(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors other names in all nodes."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
