"""Tensors of a graph under construction, written like NumPy arrays, so that a converter reads like its estimator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from onnxtool.converters.sklearn.graph import Graph
from onnxtool.models.signature import TensorSpec

Operand: TypeAlias = "Value | NDArray[Any] | float"


class Value:
    """A tensor of a graph.

    Attributes:
        graph: Where its node is written.
        name: The tensor's name.
        narrow: Whether the rows from which it is computed are float32.
        element: The precision of constants that meet it: DOUBLE or FLOAT. It is the tensor's own, if that holds
            no integers or truth values.
    """

    __array_ufunc__ = None  # so that `array - value` calls `Value.__rsub__`

    def __init__(self, graph: Graph, name: str, narrow: bool = False, element: int = TensorProto.DOUBLE) -> None:
        self.graph = graph
        self.name = name
        self.narrow = narrow
        self.element = element

    def apply(self, kind: str, *others: Operand, **attributes: Any) -> Value:
        """The result of an operator, this tensor being its first input."""
        names = [self.name, *(self.of(other).name for other in others)]
        return self._like(self.graph.node(kind, names, **attributes))

    def _like(self, name: str) -> Value:
        return Value(self.graph, name, self.narrow, self.element)

    def of(self, other: Operand) -> Value:
        """A constant as a tensor: floats in this tensor's precision, integers as int64."""
        if isinstance(other, Value):
            return other
        array = np.ascontiguousarray(other)
        if array.dtype.kind == "f":
            array = array.astype(np.float64 if self.element == TensorProto.DOUBLE else np.float32)
        elif array.dtype.kind in "iu":
            array = array.astype(np.int64)
        if array.dtype.kind in "OUS":
            array = array.astype(object)
        name = self.graph.scope.get_unique_variable_name("constant")
        shape = np.shape(other)
        self.graph.container.initializers.append(numpy_helper.from_array(array.reshape(shape), name))
        return self._like(name)

    def __add__(self, other: Operand) -> Value:
        """The sum."""
        return self.apply("Add", other)

    def __sub__(self, other: Operand) -> Value:
        """The difference."""
        return self.apply("Sub", other)

    def __rsub__(self, other: Operand) -> Value:
        """The difference from something that is no tensor."""
        return self.of(other).apply("Sub", self)

    def __mul__(self, other: Operand) -> Value:
        """The product."""
        return self.apply("Mul", other)

    def __truediv__(self, other: Operand) -> Value:
        """The quotient."""
        return self.apply("Div", other)

    def __rtruediv__(self, other: Operand) -> Value:
        """The quotient of something that is no tensor."""
        return self.of(other).apply("Div", self)

    def __matmul__(self, other: Operand) -> Value:
        """The matrix product."""
        return self.apply("MatMul", other)

    def __pow__(self, other: Operand) -> Value:
        """The power."""
        return self.apply("Pow", other)

    def __neg__(self) -> Value:
        """The negative."""
        return self.apply("Neg")

    def __lt__(self, other: Operand) -> Value:  # type: ignore[misc]  # both sides answer alike
        """Elementwise less."""
        return self.apply("Less", other)

    def __gt__(self, other: Operand) -> Value:  # type: ignore[misc]  # both sides answer alike
        """Elementwise greater."""
        return self.apply("Greater", other)

    def __le__(self, other: Operand) -> Value:  # type: ignore[misc]  # both sides answer alike
        """Elementwise less or equal."""
        return self.apply("LessOrEqual", other)

    def __ge__(self, other: Operand) -> Value:  # type: ignore[misc]  # both sides answer alike
        """Elementwise greater or equal."""
        return self.apply("GreaterOrEqual", other)

    def equals(self, other: Operand) -> Value:
        """Elementwise equality."""
        return self.apply("Equal", other)

    def where(self, yes: Operand, no: Operand) -> Value:
        """One value where this truth value holds, else the other."""
        return self.apply("Where", yes, no)

    def sum(self, axis: int = 1) -> Value:
        """The sums along an axis, which stays."""
        return self.apply("ReduceSum", np.array([axis]), keepdims=1)

    def max(self, axis: int = 1) -> Value:
        """The greatest along an axis, which stays."""
        return self._reduced("ReduceMax", axis)

    def min(self, axis: int = 1) -> Value:
        """The least along an axis, which stays."""
        return self._reduced("ReduceMin", axis)

    def _reduced(self, kind: str, axis: int) -> Value:
        if self.graph.container.target_opset_any_domain("") < 18:
            return self.apply(kind, axes=[axis], keepdims=1)
        return self.apply(kind, np.array([axis]), keepdims=1)

    def first_greatest(self, axis: int = 1) -> Value:
        """The position of the greatest along an axis, which goes."""
        return self.apply("ArgMax", axis=axis, keepdims=0)

    def first_least(self, axis: int = 1) -> Value:
        """The position of the least along an axis, which goes."""
        return self.apply("ArgMin", axis=axis, keepdims=0)

    def reshape(self, *shape: int) -> Value:
        """In another shape; -1 for what is left, 0 for the dimension as it is."""
        return self.apply("Reshape", np.array(shape))

    def nearest(self, count: int) -> Value:
        """The positions of the greatest in each row, [batch, count]; of equals the first."""
        return self.greatest(count)[1]

    def greatest(self, count: int) -> tuple[Value, Value]:
        """The greatest in each row, and their positions, [batch, count] each."""
        name = self.graph.scope.get_unique_variable_name
        both = [name("greatest"), name("places")]
        size = self.of(np.array([count]))
        self.graph.container.add_node(
            "TopK", [self.name, size.name], both, name=self.graph.scope.get_unique_operator_name("TopK"), axis=1
        )
        return self._like(both[0]), self._like(both[1])

    def columns(self, places: Sequence[int] | NDArray[Any], axis: int = 1) -> Value:
        """The elements at some positions of an axis."""
        return self.apply("Gather", np.asarray(places, dtype=np.int64), axis=axis)

    def at(self, places: Value) -> Value:
        """The entries of this vector at some positions."""
        return self.apply("Gather", places, axis=0)

    def double(self) -> Value:
        """In double precision."""
        return self._in(TensorProto.DOUBLE)

    def hstack_array(self, array: NDArray[Any]) -> Value:
        """In the precision in which NumPy computes with an array: single where rows and array are."""
        single = self.narrow and array.dtype == np.float32
        return self._in(TensorProto.FLOAT if single else TensorProto.DOUBLE)

    def _in(self, element: int) -> Value:
        return Value(self.graph, self.apply("Cast", to=element).name, self.narrow, element)

    def whole(self) -> Value:
        """As int64."""
        return self.apply("Cast", to=TensorProto.INT64)

    def hstack(self, *others: Value, axis: int = 1) -> Value:
        """Joined with others along an axis."""
        return self.apply("Concat", *others, axis=axis)


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a converter.

    Attributes:
        spec: Its name, dtype and shape.
        name: The tensor's name.
    """

    spec: TensorSpec
    name: str


class Frame(Value):
    """The columns of a data frame side by side; where one holds text, their number only can be computed with.

    Attributes:
        inputs: The columns as they came.
    """

    def __init__(self, matrix: Value, inputs: Sequence[Input]) -> None:
        super().__init__(matrix.graph, matrix.name, matrix.narrow, matrix.element)
        self.inputs = tuple(inputs)


def as_given(rows: Value) -> Value:
    """The rows in the precision in which they came."""
    return rows if isinstance(rows, Frame) else rows.hstack_array(np.zeros(0, dtype=np.float32))


def repeated(rows: Value, row: Operand) -> Value:
    """A constant row, [columns], for each of the rows that come in."""
    count = rows.apply("Shape").columns([0], axis=0)
    return rows.of(row).reshape(1, -1).apply("Expand", count.hstack(count.of(np.array([1])), axis=0))


def squared_distances(rows: Value, points: NDArray[Any]) -> Value:
    """Squared Euclidean distances to fixed points, [batch, points], by scikit-learn's formula."""
    points = np.asarray(points, dtype=float)
    own = (rows * rows).sum()
    found = own - (rows @ points.T) * 2.0 + np.asarray((points**2).sum(axis=1))
    return found.apply("Max", 0.0)


def normalised(values: Value) -> Value:
    """Each row divided by its sum."""
    return values / values.sum()


def softmax(values: Value) -> Value:
    """The exponentials of each row, divided by their sum."""
    return values.apply("Softmax", axis=1)
