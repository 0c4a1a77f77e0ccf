"""Giving a converted model the outputs that its source has: their names, order, dtypes and shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxtool.errors import ConversionError


def shape_outputs(model: onnx.ModelProto, source: Any) -> None:
    """Rework the outputs in place.

    Converters differ in what they give: a label of shape [batch], [batch, 1] or [1, batch]; scores of a binary
    classifier in one column or in two; a sequence of probabilities for several targets.

    Args:
        model: What the converter made.
        source: The `SklearnModel`, or another source with `outputs`, `inputs` and `model`.

    Raises:
        ConversionError: the converter gives fewer outputs than the source has.
    """
    graph = model.graph
    given = list(graph.output)
    wanted = list(source.outputs)
    _set_aside_names(graph, wanted)
    del graph.output[:]
    first = given[0]
    several = [name for name in wanted if name.startswith("probabilities_")]
    if several:
        _label(graph, first, wanted[0], targets=len(several))
        _split_targets(graph, given[1], several, [len(classes) for classes in source.model.classes_])
        return
    if len(given) < len(wanted):
        kind = type(source.model).__name__
        raise ConversionError(f"The converter for {kind} gives {len(given)} of the outputs {', '.join(wanted)}.")
    for value, name in zip(given, wanted, strict=False):
        if name.startswith("label"):
            targets = getattr(source.model, "classes_", None)
            _label(graph, value, name, targets=len(targets) if isinstance(targets, list) else 1)
        elif name.startswith("scores"):
            _scores(graph, value, name, _score_columns(source.model))
        elif name.startswith("prediction"):
            _reshape(graph, value, name, (-1, _targets(value)))
        else:
            _rename(graph, value, name)


def _score_columns(model: Any) -> int:
    classes = getattr(model, "classes_", None)
    if classes is None or len(classes) == 2:
        return 1
    votes = getattr(model, "decision_function_shape", "ovr") == "ovo"
    return len(classes) * (len(classes) - 1) // 2 if votes else len(classes)


def _targets(value: onnx.ValueInfoProto) -> int:
    dims = value.type.tensor_type.shape.dim
    return dims[1].dim_value if len(dims) == 2 and dims[1].dim_value > 0 else 1


def _set_aside_names(graph: onnx.GraphProto, wanted: Sequence[str]) -> None:
    """Rename what inside the graph has a name that an output is to get."""
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    taken |= {value.name for value in (*graph.input, *graph.output)} | {value.name for value in graph.initializer}
    fresh = {}
    for name in set(wanted) & taken:
        other = f"{name}_raw"
        while other in taken:
            other += "_"
        fresh[name] = other
    for node in graph.node:
        node.input[:] = [fresh.get(name, name) for name in node.input]
        node.output[:] = [fresh.get(name, name) for name in node.output]
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
    elif len(value.type.tensor_type.shape.dim) == 1:
        _rename(graph, value, name)
    else:
        _reshape(graph, value, name, (-1,))


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
    """Give a tensor another name, wherever it stands."""
    old = value.name
    for node in graph.node:
        node.input[:] = [name if used == old else used for used in node.input]
        node.output[:] = [name if made == old else made for made in node.output]
    value.name = name
    graph.output.append(value)
