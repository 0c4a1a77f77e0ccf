"""Choosing how a model is converted: the fastest way that agrees with the source.

The first way is arithmetic in the precision of the rows. Where that drifts, or ONNX Runtime or a converter refuses
it, the graph computes in double precision between casts. What was chosen and why goes into the report.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import onnx
from onnx import TensorProto, helper

from onnxtool.converters.framework import Agreement, Conversion, ConvertOptions
from onnxtool.converters.sklearn.trees import EXACT
from onnxtool.errors import ConversionError


@dataclass(frozen=True, slots=True)
class Measured:
    """One way of converting, and how far it agrees."""

    conversion: Conversion
    agreement: Agreement

    @property
    def off(self) -> int | None:
        """Rows out of tolerance; None where ONNX Runtime refuses the model."""
        return self.agreement.off

    @property
    def finding(self) -> str:
        """The result, as part of a sentence."""
        return self.agreement.finding


def choose(source: Any, options: ConvertOptions, convert: Callable[[Any], Conversion]) -> Conversion:
    """Convert in the fastest way that agrees.

    Args:
        source: A `SklearnModel`.
        options: How ways are compared, and on which rows.
        convert: Converts a source with the inputs that it has.

    Raises:
        ConversionError: no way converts the model.
    """
    wide = tuple(replace(spec, dtype="float64") if spec.dtype == "float32" else spec for spec in source.inputs)
    compare = options.compare
    if compare is None or wide == source.inputs or type(source.model).__name__ in EXACT:
        return convert(source)

    def measured(conversion: Conversion) -> Measured:
        return Measured(conversion, compare(source, conversion.model, options.rows))

    failure: ConversionError | None = None
    first = None
    try:
        first = measured(convert(source))
        if first.off == 0:
            return first.conversion
    except ConversionError as error:
        failure = error
    try:
        second = measured(_in_double(source, wide, convert))
    except ConversionError:
        if first is None:
            raise failure or ConversionError("The model has no conversion.") from None
        return first.conversion
    reason = first.finding if first else f"it cannot be converted ({failure})"
    better = first is None or first.off is None or (second.off is not None and second.off < first.off)
    if better and second.off is not None:
        choice = f"Computed in double precision between casts: in single precision {reason}."
        return Conversion(second.conversion.model, [choice, *second.conversion.choices])
    if first is None:
        raise failure or ConversionError("The model has no conversion.")
    kept = f"Computed in single precision, though {reason}: in double precision {second.finding}."
    return Conversion(first.conversion.model, [kept, *first.conversion.choices])


def _in_double(source: Any, wide: Any, convert: Callable[[Any], Conversion]) -> Conversion:
    """The model converted for float64 inputs, with the source's own around it."""
    from onnxtool.models.sklearn import SklearnModel
    from onnxtool.models.source import LoadOptions

    conversion = convert(SklearnModel(source.model, LoadOptions(inputs=wide)))
    _narrow(conversion.model, {spec.name for spec in source.inputs if spec.dtype == "float32"})
    return conversion


def _narrow(model: onnx.ModelProto, names: set[str]) -> None:
    """Give a model of double precision, in place, inputs and outputs of single precision."""
    graph = model.graph
    outputs = {value.name for value in graph.output if value.type.tensor_type.elem_type == TensorProto.DOUBLE}
    inner = {name: f"{name}_double" for name in names | outputs}
    for node in graph.node:
        node.input[:] = [inner.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
    for name in sorted(names):
        graph.node.insert(0, helper.make_node("Cast", [name], [inner[name]], to=TensorProto.DOUBLE))
    for name in sorted(outputs):
        graph.node.append(helper.make_node("Cast", [inner[name]], [name], to=TensorProto.FLOAT))
    for value in (*graph.input, *graph.output):
        if value.name in inner:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.value_info[:]
