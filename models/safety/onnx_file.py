"""What an ONNX file says that no honest one does, found before anything native reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.message import Message

MOST_NODES = 1_000_000
"""To how many nodes the calls of functions may expand."""

_ADDRESS = "_ORT_MEM_ADDR_"
"""By which ONNX Runtime, in its own process, says that external data are at an address."""

_TYPES = set(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}

Call = tuple[str, str, str]


def tensors_of(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model, wherever a message can hold one: graphs, functions, attributes, sparse tensors."""
    waiting: list[Message] = [proto]
    while waiting:
        message = waiting.pop()
        if isinstance(message, onnx.TensorProto):
            yield message
            continue
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting += [value] if isinstance(value, Message) else value


def locations_of(tensor: onnx.TensorProto) -> list[str]:
    """Every place that a tensor names for its data; readers differ in which of several they take."""
    return [entry.value for entry in tensor.external_data if entry.key == "location"]


def fault_of(proto: onnx.ModelProto) -> str:
    """What is wrong with a model's tensors or functions, to follow on its name; nothing where they are right."""
    for tensor in tensors_of(proto):
        name = tensor.name[:80]
        if tensor.data_type not in _TYPES:
            return f"is damaged: the tensor {name!r} is of no type that there is"
        if any(size < 0 for size in tensor.dims):
            return f"is damaged: the tensor {name!r} has a negative size"
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        places = locations_of(tensor)
        if len(places) != 1:
            return f"is damaged: the tensor {name!r} names {len(places) or 'no'} places for its data"
        if _ADDRESS in places[0]:
            return f"is damaged: the tensor {name!r} names an address in memory for its data"
        for entry in tensor.external_data:
            if entry.key in ("offset", "length") and not (entry.value.isdecimal() and int(entry.value) < 2**62):
                return f"is damaged: the tensor {name!r} has the {entry.key} {entry.value[:40]!r}"
    return _functions_fault(proto)


def _functions_fault(proto: onnx.ModelProto) -> str:
    """Functions that call each other in a circle, or that expand beyond what can be held."""
    bodies: dict[Call, Any] = {(f.domain, f.name, f.overload): f.node for f in proto.functions}
    if not bodies:
        return ""
    sizes: dict[Call, int] = {}
    waiting: list[tuple[Call, bool]] = [(call, False) for call in bodies]
    open_calls: set[Call] = set()
    while waiting:
        call, is_done = waiting.pop()
        if call in sizes:
            continue
        callees = [_call(node) for node in _nodes(bodies[call])]
        if is_done:
            open_calls.discard(call)
            sizes[call] = sum(sizes.get(callee, 1) for callee in callees)
            continue
        open_calls.add(call)
        waiting.append((call, True))
        for callee in callees:
            if callee in open_calls:
                return f"is damaged: its function {callee[1][:80]!r} calls itself"
            if callee in bodies and callee not in sizes:
                waiting.append((callee, False))
    whole = sum(sizes.get(_call(node), 1) for node in _nodes(proto.graph.node))
    if whole > MOST_NODES:
        return f"expands to {whole:,} nodes, through functions that call functions; {MOST_NODES:,} are the most"
    return ""


def _call(node: onnx.NodeProto) -> Call:
    return node.domain, node.op_type, node.overload


def _nodes(nodes: Any) -> Iterator[onnx.NodeProto]:
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting += graph.node
