"""Slot names: how ML.NET names the elements of a vector column, and where it finds them in an ONNX model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxtool.converters.graph.repairs import ML, fresh_name, relabel
from onnxtool.models.onnx.evaluate import zipmap_classes

_LABEL_ENCODER = 2  # the first version of ML whose LabelEncoder has keys_strings


def zipmap_to_tensor(model: onnx.ModelProto, value: onnx.ValueInfoProto) -> bool:
    """Replace an output of ZipMap, a map of class to number for each row, by the matrix and its slot names."""
    graph = model.graph
    node = next((node for node in graph.node if node.op_type == "ZipMap" and value.name in node.output), None)
    if node is None:
        return False
    classes = zipmap_classes(node)
    first = next((read.type.tensor_type.shape.dim for read in graph.input), None)
    batch = (first[0].dim_value or first[0].dim_param or None) if first else None
    node.CopyFrom(helper.make_node("Identity", node.input, [value.name]))
    value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, [batch, len(classes)]))
    name_slots(model, value.name, classes)
    return True


def name_slots(model: onnx.ModelProto, column: str, names: Sequence[str]) -> bool:
    """Name the elements of an output the way ML.NET does: on a node that computes nothing that is read.

    The node is the one that ML.NET's own exporter writes (SaveOnnxCommand.cs).

    Returns:
        Whether the model's operator sets have such a node.
    """
    graph = model.graph
    versions = [entry.version for entry in model.opset_import if entry.domain == ML]
    if not versions:
        model.opset_import.append(helper.make_opsetid(ML, _LABEL_ENCODER))
    elif min(versions) < _LABEL_ENCODER and not relabel(model, ML, _LABEL_ENCODER):
        return False
    key = fresh_name(graph, f"mlnet.{column}.SlotNames.key")
    graph.initializer.append(numpy_helper.from_array(np.array([["one"]], dtype=object), key))
    graph.node.append(
        helper.make_node(
            "LabelEncoder",
            [key],
            [fresh_name(graph, f"mlnet.{column}.SlotNames.answer")],
            name=slot_names_node(column),
            domain=ML,
            keys_strings=list(names),
            values_int64s=list(range(len(names))),
        )
    )
    return True


def slot_names_node(column: str) -> str:
    """The name by which ML.NET finds the node that names a column's elements."""
    return f"mlnet.{column}.SlotNames"


def slot_names(graph: onnx.GraphProto) -> dict[str, list[str]]:
    """Names of the elements of every output that has some, by output."""
    found: dict[str, list[str]] = {}
    nodes = {node.name: node for node in graph.node}
    for value in graph.output:
        node = nodes.get(slot_names_node(value.name))
        keys = list(_attributes(node, "keys_strings")) if node else []
        if keys:
            found[value.name] = [name.decode("utf-8", "replace") for name in keys[0].strings]
    return found


def _attributes(node: onnx.NodeProto, name: str) -> Iterator[onnx.AttributeProto]:
    return (attribute for attribute in node.attribute if attribute.name == name)
