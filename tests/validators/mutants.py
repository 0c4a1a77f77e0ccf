"""Wrong copies of a graph, made from its nodes: what `verify` must find without being given rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Mutation = Callable[[onnx.GraphProto, onnx.NodeProto], str | None]
"""Changes a node of a copied graph in place and says how; None where it has nothing to do with it."""


def mutants(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Every mutation of every node."""
    for place, node in enumerate(model.graph.node):
        for mutation in MUTATIONS:
            copy = onnx.ModelProto()
            copy.CopyFrom(model)
            if how := mutation(copy.graph, copy.graph.node[place]):
                onnx.checker.check_model(copy)
                yield f"{node.op_type}: {how}", copy


def _replaced(graph: onnx.GraphProto, node: onnx.NodeProto, *nodes: onnx.NodeProto) -> None:
    rest = list(graph.node)
    place = next(place for place, other in enumerate(rest) if other is node or other == node)
    del graph.node[:]
    graph.node.extend([*rest[:place], *nodes, *rest[place + 1 :]])


def permuted_rows(graph: onnx.GraphProto, node: onnx.NodeProto) -> str | None:
    """Two rows of a table change places: the last two, which a small sample of tokens misses."""
    if node.op_type != "Gather":
        return None
    table = next((tensor for tensor in graph.initializer if tensor.name == node.input[0]), None)
    if table is None:
        return None
    rows = numpy_helper.to_array(table).copy()
    rows[[-1, -2]] = rows[[-2, -1]]
    table.CopyFrom(numpy_helper.from_array(rows, table.name))
    return "two rows of the table are swapped"


def permuted_words(graph: onnx.GraphProto, node: onnx.NodeProto) -> str | None:
    """Two entries of a vocabulary change places."""
    for name in ("keys_strings", "keys_int64s", "cats_strings", "cats_int64s", "keys_floats"):
        reads = graph.input[0].type.tensor_type.elem_type == TensorProto.STRING
        for attribute in node.attribute:
            if attribute.name == name and (name.endswith("strings") == reads or node.op_type == "CategoryMapper"):
                for values in (attribute.strings, attribute.ints, attribute.floats):
                    if len(values) > 1:
                        values[-1], values[-2] = values[-2], values[-1]
                return "two entries of the vocabulary are swapped"
    return None


def other_epsilon(graph: onnx.GraphProto, node: onnx.NodeProto) -> str | None:
    """The epsilon of a normalisation is ten times as large."""
    for attribute in node.attribute:
        if attribute.name == "epsilon":
            attribute.f *= 10
            return "epsilon is ten times as large"
    return None


def dropped(graph: onnx.GraphProto, node: onnx.NodeProto) -> str | None:
    """An operator of a single number is left out."""
    if node.op_type in {"Clip", "Relu", "Abs", "Floor", "Round", "Sign", "Sqrt"}:
        _replaced(graph, node, helper.make_node("Identity", node.input[:1], node.output))
        return "it is left out"
    return None


def one_bound(graph: onnx.GraphProto, node: onnx.NodeProto) -> str | None:
    """A clamp has its lower bound only."""
    if node.op_type == "Clip" and len(node.input) == 3:
        del node.input[2:]
        return "its upper bound is missing"
    return None


def as_products(graph: onnx.GraphProto, node: onnx.NodeProto) -> str | None:
    """A selection is written as a sum of products."""
    if node.op_type != "Where":
        return None
    condition, first, second = node.input
    _replaced(
        graph,
        node,
        helper.make_node("Not", [condition], ["m_not"]),
        helper.make_node("Cast", [condition], ["m_yes"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["m_not"], ["m_no"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["m_yes", first], ["m_first"]),
        helper.make_node("Mul", ["m_no", second], ["m_second"]),
        helper.make_node("Add", ["m_first", "m_second"], node.output),
    )
    return "it is written as products"


def other_comparison(graph: onnx.GraphProto, node: onnx.NodeProto) -> str | None:
    """A comparison takes, or does not take, what is equal."""
    pairs = {"Greater": "GreaterOrEqual", "Less": "LessOrEqual"}
    pairs |= {second: first for first, second in pairs.items()}
    if node.op_type in pairs:
        node.op_type = pairs[node.op_type]
        return f"it is {node.op_type}"
    return None


def narrower(graph: onnx.GraphProto, node: onnx.NodeProto) -> str | None:
    """Whole numbers go through int32."""
    if node.op_type not in {"Mod", "Div", "BitShift"} or "ids" not in node.input:
        return None
    rest = [name if name != "ids" else "m_wide" for name in node.input]
    _replaced(
        graph,
        node,
        helper.make_node("Cast", ["ids"], ["m_narrow"], to=TensorProto.INT32),
        helper.make_node("Cast", ["m_narrow"], ["m_wide"], to=TensorProto.INT64),
        helper.make_node(
            node.op_type, rest, node.output, **{a.name: helper.get_attribute_value(a) for a in node.attribute}
        ),
    )
    return "it reads int32"


def always_false(graph: onnx.GraphProto, node: onnx.NodeProto) -> str | None:
    """Nothing is missing or infinite."""
    if node.op_type not in {"IsNaN", "IsInf"}:
        return None
    graph.initializer.append(numpy_helper.from_array(np.array(False), "m_false"))
    _replaced(
        graph,
        node,
        helper.make_node(node.op_type, node.input, ["m_is"]),
        helper.make_node("And", ["m_is", "m_false"], node.output),
    )
    return "it is never true"


OTHER_VALUES = {
    ("LeakyRelu", "alpha"): 0.011,
    ("Elu", "alpha"): 1.1,
    ("ThresholdedRelu", "alpha"): 1.1,
    ("HardSigmoid", "alpha"): 0.21,
    ("Gelu", "approximate"): "tanh",
    ("Softmax", "axis"): 0,
    ("ArgMax", "select_last_index"): 1,
    ("ArgMin", "select_last_index"): 1,
    ("CumSum", "exclusive"): 1,
    ("Shrink", "lambd"): 0.6,
    ("Celu", "alpha"): 1.1,
}
"""Another value of an attribute, near to the right one."""


def other_attribute(graph: onnx.GraphProto, node: onnx.NodeProto) -> str | None:
    """An attribute has another value."""
    for (kind, name), value in OTHER_VALUES.items():
        if node.op_type == kind:
            kept = [attribute for attribute in node.attribute if attribute.name != name]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute(name, value)])
            return f"its {name} is {value}"
    return None


OTHER_KINDS = {
    "Max": "Sum", "Min": "Sum", "ReduceMax": "ReduceSum", "Tanh": "Softsign", "Selu": "Elu", "Mish": "HardSwish",
    "Ceil": "Floor", "Softplus": "Relu", "HardSwish": "Relu",
}  # fmt: skip


def other_kind(graph: onnx.GraphProto, node: onnx.NodeProto) -> str | None:
    """A similar operator stands in its place."""
    if node.op_type not in OTHER_KINDS:
        return None
    node.op_type = OTHER_KINDS[node.op_type]
    return f"it is {node.op_type}"


def swapped_inputs(graph: onnx.GraphProto, node: onnx.NodeProto) -> str | None:
    """Two inputs change places."""
    if node.op_type not in {"Concat", "Sub", "Pow"} or len(set(node.input)) < 2:
        return None
    node.input[:] = list(reversed(node.input))
    return "its inputs are swapped"


MUTATIONS: Sequence[Mutation] = (
    permuted_rows, permuted_words, other_epsilon, dropped, one_bound, as_products, other_comparison, narrower,
    always_false, other_attribute, other_kind, swapped_inputs,
)  # fmt: skip
