"""Writing nodes from a converter registered with skl2onnx."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def is_double(operator: Any) -> bool:
    """Whether an operator of skl2onnx reads double precision."""
    types = require("skl2onnx.common.data_types", "sklearn")
    return any(isinstance(value.type, types.DoubleTensorType) for value in operator.inputs)


def number_type(operator: Any) -> Any:
    """skl2onnx's type for the numbers that an operator gives: double precision for double precision."""
    types = require("skl2onnx.common.data_types", "sklearn")
    return types.DoubleTensorType if is_double(operator) else types.FloatTensorType
