"""Adapt a converted model to ML.NET, with the requested columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal, TypeAlias

import onnx
from onnx import TensorProto, helper

from onnxtool.converters.graph import repairs
from onnxtool.converters.graph.finish import default_opset, name_dimensions
from onnxtool.models.onnx.artifact import COLUMNS
from onnxtool.models.signature import TensorSpec
from onnxtool.models.source import SourceModel
from onnxtool.targets.lint import RuleSet
from onnxtool.targets.mlnet.checks import DTYPES
from onnxtool.targets.mlnet.releases import Deployment
from onnxtool.targets.mlnet.slots import name_slots

Columns: TypeAlias = Literal["separate", "vector"]
"""One input of shape [batch, 1] a column, or one vector for all columns of a dtype."""

_VECTORS = {
    TensorProto.FLOAT: "features",
    **{
        dtype: f"features_{helper.tensor_dtype_to_np_dtype(dtype).name}"
        for dtype in sorted(DTYPES - {TensorProto.FLOAT, TensorProto.STRING})
    },
    TensorProto.STRING: "features_string",
}
"""Name of the vector for the columns of a dtype."""

_SPLIT_BY_INPUT = 13


def adapt(
    model: onnx.ModelProto, source: SourceModel, columns: Columns | None, rules: RuleSet[Deployment]
) -> list[str]:
    """Make a model keep ML.NET's rules, in place; see `Target.adapt`.

    Args:
        model: Inputs and outputs have the source's names.
        source: The model that it was converted from.
        columns: How the columns of a table go in; None keeps the source's way.
        rules: Rules of the release.
    """
    name_dimensions(model, source.inputs)
    for spec in source.inputs:
        if spec.columns and columns != "separate":
            _remember(model, spec.name, spec.columns)
    done = rules.repair(model)
    if columns == "separate":
        done += _separate(model.graph, source.inputs)
    elif columns == "vector":
        done += _join(model)
    return [*done, *_name_classes(model, source), *rules.require(model, "mlnet")]


def _separate(graph: onnx.GraphProto, specs: Sequence[TensorSpec]) -> list[str]:
    """An input of shape [batch, 1] for each column of a matrix."""
    done = []
    by_name = {spec.name: spec for spec in specs}
    for value in list(graph.input):
        dims = value.type.tensor_type.shape.dim
        if value.name not in by_name or len(dims) != 2 or dims[1].dim_value < 2:
            continue
        matrix, place = repairs.detach(graph, value.name), list(graph.input).index(value)
        names = by_name[value.name].columns or [f"{value.name}_{column}" for column in range(dims[1].dim_value)]
        graph.input.remove(value)
        inputs = []
        for offset, name in enumerate(names):
            column = onnx.ValueInfoProto()
            column.CopyFrom(value)
            column.name = repairs.fresh_name(graph, name)
            column.type.tensor_type.shape.dim[1].dim_value = 1
            graph.input.insert(place + offset, column)
            inputs.append(column.name)
        graph.node.insert(0, helper.make_node("Concat", inputs, [matrix], axis=1))
        done.append(f"{value.name}: an input for each of its {len(inputs)} columns.")
    return done


def _join(model: onnx.ModelProto) -> list[str]:
    """One vector for all inputs of shape [batch, 1] of a dtype."""
    graph, done = model.graph, []
    for dtype, expected in _VECTORS.items():
        columns = [
            value
            for value in graph.input
            if value.type.tensor_type.elem_type == dtype
            and [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [0, 1]
        ]
        if len(columns) < 2:
            continue
        names = [value.name for value in columns]
        parts = [repairs.detach(graph, name) for name in names]
        vector = onnx.ValueInfoProto()
        vector.CopyFrom(columns[0])
        vector.type.tensor_type.shape.dim[1].dim_value = len(columns)
        place = list(graph.input).index(columns[0])
        for value in columns:
            graph.input.remove(value)
        vector.name = repairs.fresh_name(graph, expected)
        graph.input.insert(place, vector)
        sizes = [1] * len(columns)
        if default_opset(model) < _SPLIT_BY_INPUT:
            split = helper.make_node("Split", [vector.name], parts, axis=1, split=sizes)
        else:
            shares = repairs.constant(graph, f"{vector.name}_shares", sizes)
            split = helper.make_node("Split", [vector.name, shares], parts, axis=1)
        graph.node.insert(0, split)
        _remember(model, vector.name, names)
        done.append(f"{vector.name}: a vector of the columns {', '.join(names)}.")
    return done


def _remember(model: onnx.ModelProto, name: str, columns: Sequence[str]) -> None:
    """Keep the names of a vector's columns: in C# the vector is an array, whose order must be known."""
    entry = model.metadata_props.add()
    entry.key, entry.value = f"{COLUMNS}{name}", json.dumps(list(columns), ensure_ascii=False)


def _name_classes(model: onnx.ModelProto, source: SourceModel) -> list[str]:
    """Name the elements of probabilities as the source names its classes."""
    outputs = [value for value in model.graph.output if source.roles.get(value.name) == "probabilities"]
    done = []
    for value, names in zip(outputs, source.classes, strict=False):
        fits = value.type.tensor_type.shape.dim[-1].dim_value in (0, len(names))
        if fits and name_slots(model, value.name, list(names)):
            done.append(f"{value.name}: ML.NET reads the class names as its slot names.")
    return done
