"""Edits at a graph's border, in place: other dtypes, ranks and names, with the same numbers computed inside."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxtool.models.onnx.artifact import all_nodes

ML = "ai.onnx.ml"


def consumed(graph: onnx.GraphProto) -> set[str]:
    """The names of all tensors that some node reads, or that are outputs."""
    return {name for node in all_nodes(graph) for name in node.input} | {
        value.name for inner in _graphs(graph) for value in inner.output
    }


def fresh_name(graph: onnx.GraphProto, base: str) -> str:
    """A name that no tensor of the graph has: `base`, or `base` with a number."""
    taken = consumed(graph) | {name for node in all_nodes(graph) for name in node.output}
    taken |= {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    name = base
    while name in taken:
        name += "_"
    return name


def detach(graph: onnx.GraphProto, name: str) -> str:
    """Give an input's readers, or an output's writer, another tensor instead; return its name.

    What comes between the two, or in place of the one, is the caller's.
    """
    inner = fresh_name(graph, f"{name}_inside")
    _rename(graph, {name: inner})
    return inner


def recast_input(graph: onnx.GraphProto, value: onnx.ValueInfoProto, dtype: int) -> None:
    """Give an input another dtype; a Cast restores the one that the graph reads."""
    inner = detach(graph, value.name)
    graph.node.insert(0, helper.make_node("Cast", [value.name], [inner], to=value.type.tensor_type.elem_type))
    value.type.tensor_type.elem_type = dtype


def recast_output(graph: onnx.GraphProto, value: onnx.ValueInfoProto, dtype: int) -> None:
    """Cast an output to another dtype."""
    graph.node.append(helper.make_node("Cast", [detach(graph, value.name)], [value.name], to=dtype))
    value.type.tensor_type.elem_type = dtype


def reshape_input(
    graph: onnx.GraphProto, value: onnx.ValueInfoProto, dims: Sequence[int | str], inside: Sequence[int]
) -> None:
    """Give an input other dimensions; a Reshape restores the ones that the graph reads."""
    shape = constant(graph, f"{value.name}_shape", inside)
    inner = detach(graph, value.name)
    graph.node.insert(0, helper.make_node("Reshape", [value.name, shape], [inner]))
    _set_dims(value, dims)


def reshape_output(graph: onnx.GraphProto, value: onnx.ValueInfoProto, dims: Sequence[int]) -> None:
    """Give an output other dimensions."""
    shape = constant(graph, f"{value.name}_shape", dims)
    graph.node.append(helper.make_node("Reshape", [detach(graph, value.name), shape], [value.name]))
    _set_dims(value, dims)


def rename_output(graph: onnx.GraphProto, value: onnx.ValueInfoProto, name: str) -> None:
    """Give an output another name, which no tensor has."""
    _rename(graph, {value.name: name})
    value.name = name


def initializers_to_constants(model: onnx.ModelProto, dtypes: Collection[int]) -> list[str]:
    """Write initializers of some dtypes as Constant nodes, bit for bit the same; return their names."""
    graph = model.graph
    moved = [tensor for tensor in graph.initializer if tensor.data_type in dtypes]
    names = [tensor.name for tensor in moved]
    for tensor in moved:
        graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].data_type in dtypes:
            del graph.initializer[place]
    for value in [value for value in graph.input if value.name in names]:
        graph.input.remove(value)
    if names:
        model.ir_version = max(model.ir_version, 4)  # before, every initializer had to be an input too
    return names


def lower_opset(model: onnx.ModelProto, domain: str, version: int) -> bool:
    """Express a model in an older version of an operator set; False where that cannot be done.

    Where no operator changed since, the number alone is lowered; else ONNX's version converter does it.
    """
    if relabel(model, domain, version):
        return True
    if domain:
        return False  # ONNX's converter knows the default domain only
    try:
        model.CopyFrom(onnx.version_converter.convert_version(model, version))
    except (RuntimeError, onnx.version_converter.ConvertError):
        return False
    return True


def relabel(model: onnx.ModelProto, domain: str, version: int) -> bool:
    """Give an operator set another version; False where one of the model's operators is another one there.

    An operator is the same where its inputs, outputs, attributes and their defaults are: from opset 11 on, versions
    that agree in these differ only in the types and values that they allow, and ONNX Runtime refuses what it must.
    """
    entries = [entry for entry in model.opset_import if entry.domain in _aliases(domain)]
    nodes = [node for node in all_nodes(model.graph) if node.domain in _aliases(domain)]
    nodes += [node for function in model.functions for node in function.node if node.domain in _aliases(domain)]
    try:
        for entry in entries:
            for kind in {node.op_type for node in nodes}:
                now, then = (onnx.defs.get_schema(kind, number, domain) for number in (entry.version, version))
                if now.since_version != then.since_version and _signature(now) != _signature(then):
                    return False
    except onnx.defs.SchemaError:  # an operator that is not there
        return False
    for entry in entries:
        entry.version = version
    return True


def _signature(schema: onnx.defs.OpSchema) -> tuple[Any, ...]:
    attributes = sorted(
        (name, attribute.type, attribute.required, attribute.default_value.SerializeToString())
        for name, attribute in schema.attributes.items()
    )
    parameters = [[(one.name, one.option) for one in several] for several in (schema.inputs, schema.outputs)]
    return attributes, parameters


def _aliases(domain: str) -> tuple[str, ...]:
    return (domain,) if domain else ("", "ai.onnx")


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
            for one in inner:
                yield from _graphs(one)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors other names wherever they are read and written; the graph's own inputs and outputs stay."""
    for inner in _graphs(graph):
        for node in inner.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        kept = inner.value_info if inner is graph else (*inner.value_info, *inner.output)
        for value in (*kept, *inner.initializer):
            value.name = names.get(value.name, value.name)


def constant(graph: onnx.GraphProto, base: str, values: Sequence[int]) -> str:
    """Add a vector of int64 under a name like `base`, and return the name."""
    name = fresh_name(graph, base)
    graph.initializer.append(numpy_helper.from_array(np.array(values, dtype=np.int64), name))
    return name


def _set_dims(value: onnx.ValueInfoProto, dims: Sequence[int | str]) -> None:
    dtype = value.type.tensor_type.elem_type
    value.type.CopyFrom(helper.make_tensor_type_proto(dtype, list(dims)))
