"""Choosing how a model is converted: the fastest way that agrees with the source.

The first way is arithmetic in the precision of the inputs. Where that drifts, or ONNX Runtime or a converter refuses
it, the graph computes in double precision between casts. What was chosen and why goes into the report. Inputs of
float64, or numbers as int64, are there because float32 cannot hold the rows: then the graph computes in double.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx
from onnx import TensorProto, helper

from onnxtool.converters.framework import Agreement, Conversion, ConvertOptions
from onnxtool.converters.sklearn.trees import EXACT
from onnxtool.errors import ConversionError
from onnxtool.models.signature import TensorSpec, in_double


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
    if doubles(source):
        return in_given_dtypes(source, convert)
    wide = in_double(source.inputs)
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


def with_inputs(source: Any, inputs: Sequence[TensorSpec]) -> Any:
    """The same source, of which some inputs have another dtype."""
    if not inputs:
        return source
    other = copy.copy(source)
    other.inputs = tuple(inputs)
    return other


def doubles(source: Any) -> bool:
    """Whether an input that holds numbers is of a dtype that holds more than float32 does."""
    return any(spec.dtype in ("float64", "int64") and spec.name in source.numbers for spec in source.inputs)


def in_given_dtypes(source: Any, convert: Callable[[Any], Conversion]) -> Conversion:
    """Convert in double precision where an input needs it, each input in its own dtype; else as it is.

    Args:
        source: A `SklearnModel` or `BoostingModel`.
        convert: Converts a source with the inputs that it has.

    Raises:
        ConversionError: the model has no conversion.
    """
    others = {
        spec.name: _ELEMENTS[spec.dtype]
        for spec in source.inputs
        if spec.name in source.numbers and spec.dtype in _ELEMENTS
    }
    if not others or not doubles(source):
        return convert(source)
    wide = [replace(spec, dtype="float64") if spec.name in others else spec for spec in source.inputs]
    conversion = convert(with_inputs(source, wide))
    _cast(conversion.model, others, {})
    return conversion


_ELEMENTS = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def _in_double(source: Any, wide: Any, convert: Callable[[Any], Conversion]) -> Conversion:
    """The model converted for float64 inputs, with the source's own around it, and outputs of single precision."""
    conversion = convert(with_inputs(source, wide))
    outputs = [
        value.name
        for value in conversion.model.graph.output
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE
    ]
    inputs = [spec.name for spec in source.inputs if spec.dtype == "float32"]
    _cast(conversion.model, dict.fromkeys(inputs, TensorProto.FLOAT), dict.fromkeys(outputs, TensorProto.FLOAT))
    return conversion


def _cast(model: onnx.ModelProto, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> None:
    """Give inputs and outputs of a model of double precision, in place, other element types."""
    graph = model.graph
    inner = {name: f"{name}_double" for name in (*inputs, *outputs)}
    for node in graph.node:
        node.input[:] = [inner.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
    for name in sorted(inputs):
        graph.node.insert(0, helper.make_node("Cast", [name], [inner[name]], to=TensorProto.DOUBLE))
    for name in sorted(outputs):
        graph.node.append(helper.make_node("Cast", [inner[name]], [name], to=outputs[name]))
    for value in (*graph.input, *graph.output):
        if value.name in inner:
            value.type.tensor_type.elem_type = {**inputs, **outputs}[value.name]
    del graph.value_info[:]
