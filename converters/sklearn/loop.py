"""Loops in a graph under construction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto, helper

from onnxtool.converters.sklearn.values import Value


def loop(count: int, state: list[Value], step: Callable[[list[Value]], list[Value]]) -> list[Value]:
    """Repeat a step so many times.

    Args:
        count: How often.
        state: What the first step is given, in double precision. The step sees nothing else but constants, so that
            the order of the outer nodes cannot matter.
        step: From a state to the next, of the same shapes.

    Returns:
        The state after the last step.
    """
    first = state[0]
    graph, container = first.graph, first.graph.container
    fresh = graph.scope.get_unique_variable_name
    inner = [Value(graph, fresh("state"), one.narrow, one.element) for one in state]
    written = len(container.nodes)
    after = step(inner)
    nodes = container.nodes[written:]
    del container.nodes[written:]
    number, going = fresh("step"), fresh("going")
    still = fresh("still")
    nodes.append(helper.make_node("Identity", [going], [still]))
    body = helper.make_graph(
        nodes,
        fresh("body"),
        [
            helper.make_tensor_value_info(number, TensorProto.INT64, []),
            helper.make_tensor_value_info(going, TensorProto.BOOL, []),
            *(helper.make_tensor_value_info(one.name, TensorProto.DOUBLE, None) for one in inner),
        ],
        [
            helper.make_tensor_value_info(still, TensorProto.BOOL, []),
            *(helper.make_tensor_value_info(one.name, TensorProto.DOUBLE, None) for one in after),
        ],
    )
    outputs = [fresh("last") for _ in state]
    inputs = [first.of(np.array(count)).name, first.of(np.array(True)).name, *(one.name for one in state)]
    container.add_node("Loop", inputs, outputs, name=graph.scope.get_unique_operator_name("Loop"), body=body)
    return [Value(graph, name, one.narrow, one.element) for name, one in zip(outputs, state, strict=True)]
