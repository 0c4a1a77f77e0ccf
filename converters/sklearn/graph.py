"""Writing nodes from a converter registered with skl2onnx."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxtool.errors import require

ML = "ai.onnx.ml"
"""Domain of the operators of classical machine learning."""

ML_OPSET = 3
"""Its version: the first with tree ensembles in double precision; every supported ONNX Runtime has it."""


class Graph:
    """Writes nodes into skl2onnx's container, with fresh names."""

    def __init__(self, scope: Any, container: Any) -> None:
        self.scope = scope
        self.container = container

    def node(
        self, kind: str, inputs: str | Sequence[str], output: str = "", domain: str = "", **attrs: Any
    ) -> str:
        """Add a node with one output, and return the output's name."""
        name = output or self.scope.get_unique_variable_name(kind.lower())
        versions = {"op_domain": domain, "op_version": ML_OPSET} if domain else {}
        self.container.add_node(
            kind, inputs, name, name=self.scope.get_unique_operator_name(kind), **versions, **attrs
        )
        return name

    def constant(self, kind: int, values: Sequence[Any]) -> str:
        """Add a one-dimensional constant, and return its name."""
        name: str = self.scope.get_unique_variable_name("constant")
        self.container.add_initializer(name, kind, [len(values)], list(values))
        return name

    def rows(self, operator: Any, element: int) -> str:
        """All inputs of an operator side by side, in one element type: the name of a matrix."""
        wide = [
            value.full_name if _element(value) == element else self.node("Cast", value.full_name, to=element)
            for value in operator.inputs
        ]
        return wide[0] if len(wide) == 1 else self.node("Concat", wide, axis=1)

    def cast(self, name: str, given: int, target: int, output: str = "") -> str:
        """A tensor cast to another element type, or under another name where `output` is given."""
        if given != target:
            return self.node("Cast", name, output, to=target)
        return self.node("Identity", name, output) if output else name

    def tensor(self, values: NDArray[Any]) -> str:
        """Add a constant with an array's shape and dtype, and return its name."""
        name: str = self.scope.get_unique_variable_name("constant")
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        self.container.add_initializer(name, kind, list(values.shape), values.ravel().tolist())
        return name

    def labels(self, scores: str, classes: NDArray[Any], output: str = "") -> str:
        """The label of the greatest of the scores [batch, classes], the first of several; [batch]."""
        if _are_positions(classes):
            return self.node("ArgMax", scores, output, axis=1, keepdims=0)
        return self.labels_at(self.node("ArgMax", scores, axis=1, keepdims=0), classes, output)

    def labels_at(self, places: str, classes: NDArray[Any], output: str = "") -> str:
        """The labels at given positions, which are any shape; [batch]."""
        flat = self.node("Reshape", [places, self.constant(TensorProto.INT64, [-1])])
        if classes.dtype.kind in "OUS":
            known = self.constant(TensorProto.STRING, [str(label) for label in classes])
        else:
            known = self.constant(TensorProto.INT64, [int(label) for label in classes])
        return self.node("Gather", [known, flat], output, axis=0)


_LATER: ContextVar[dict[str, Callable[[onnx.NodeProto], None]] | None] = ContextVar("_LATER", default=None)


def write_later(node: onnx.NodeProto, write: Callable[[onnx.NodeProto], None]) -> None:
    """Write a node's attributes when the model is complete, see `completed`: skl2onnx copies every node."""
    later = _LATER.get()
    if later is None:
        write(node)
    else:
        later[node.name] = write


@contextlib.contextmanager
def completed() -> Iterator[Callable[[onnx.ModelProto], None]]:
    """Hold large attributes back; what it yields writes them into the model, in place."""
    later: dict[str, Callable[[onnx.NodeProto], None]] = {}

    def complete(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.name in later:
                later.pop(node.name)(node)

    token = _LATER.set(later)
    try:
        yield complete
    finally:
        _LATER.reset(token)


def _element(value: Any) -> int:
    kind = require("skl2onnx.common.data_types", "sklearn").guess_proto_type
    return int(kind(value.type))


def _are_positions(classes: NDArray[Any]) -> bool:
    return classes.dtype.kind in "iu" and np.array_equal(classes, np.arange(len(classes)))


def label_type(classes: NDArray[Any]) -> Any:
    """skl2onnx's type for labels: text for text, else whole numbers."""
    types = require("skl2onnx.common.data_types", "sklearn")
    return types.StringTensorType if classes.dtype.kind in "OUS" else types.Int64TensorType


def is_double(operator: Any) -> bool:
    """Whether an operator of skl2onnx reads double precision."""
    types = require("skl2onnx.common.data_types", "sklearn")
    return any(isinstance(value.type, types.DoubleTensorType) for value in operator.inputs)


def element_type(operator: Any) -> int:
    """The element type of the numbers that an operator gives: double precision for double precision."""
    return int(TensorProto.DOUBLE if is_double(operator) else TensorProto.FLOAT)


def number_type(operator: Any) -> Any:
    """skl2onnx's type for the numbers that an operator gives: double precision for double precision."""
    types = require("skl2onnx.common.data_types", "sklearn")
    return types.DoubleTensorType if is_double(operator) else types.FloatTensorType
