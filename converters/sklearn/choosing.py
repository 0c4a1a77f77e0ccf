"""Choosing how a model is converted: the fastest way that agrees with the source.

The first way is arithmetic in the precision of the rows. Where that drifts, or ONNX Runtime or a converter refuses
it, the graph computes in double precision between casts. What was chosen and why goes into the report.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from onnxtool.converters.framework import Conversion
from onnxtool.converters.sklearn.trees import EXACT
from onnxtool.errors import ConversionError, OnnxtoolError
from onnxtool.models.artifact import OnnxModel, fits_inline
from onnxtool.models.signature import Tensors
from onnxtool.validators.parity import Rows, check_parity, made_up_rows

ROWS = 256
"""Rows on which the ways are measured; what is chosen is then verified on all rows."""

SEED = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """One way of converting.

    Attributes:
        conversion: What it made.
        off: Rows out of tolerance; None where ONNX Runtime refuses the model.
        finding: What was found, as half a sentence.
    """

    conversion: Conversion
    off: int | None
    finding: str


def choose(source: Any, rows: Tensors, convert: Callable[[Any], Conversion]) -> Conversion:
    """Convert in the fastest way that agrees.

    Args:
        source: A `SklearnModel`.
        rows: Rows of the user's own to measure with; none for rows that are made up.
        convert: Converts a source with the inputs that it has.

    Raises:
        ConversionError: no way converts the model.
    """
    wide = tuple(replace(spec, dtype="float64") if spec.dtype == "float32" else spec for spec in source.inputs)
    if wide == source.inputs or type(source.model).__name__ in EXACT:
        return convert(source)
    failure: ConversionError | None = None
    first = None
    try:
        first = _measured(source, convert(source), rows)
        if first.off == 0:
            return first.conversion
    except ConversionError as error:
        failure = error
    try:
        second = _measured(source, _in_double(source, wide, convert), rows)
    except ConversionError:
        if first is None:
            raise failure or ConversionError("The model has no conversion.") from None
        return first.conversion
    reason = first.finding if first else f"it cannot be converted ({failure})"
    better = first is None or first.off is None or (second.off is not None and second.off < first.off)
    if better and second.off is not None:
        said = f"Computed in double precision between casts: in single precision {reason}."
        return Conversion(second.conversion.model, [said, *second.conversion.choices])
    if first is None:
        raise failure or ConversionError("The model has no conversion.")
    kept = f"Computed in single precision, though {reason}: in double precision {second.finding}."
    return Conversion(first.conversion.model, [kept, *first.conversion.choices])


def _measured(source: Any, conversion: Conversion, given: Tensors) -> Measured:
    if not fits_inline(conversion.model):
        return Measured(conversion, 0, "the model is too large to be tried out")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(conversion.model.SerializeToString())
        model = OnnxModel(path, conversion.model)
        rows = made_up_rows(source.inputs, source, model, SEED)
        few = {name: tensor[:ROWS] for name, tensor in (given or rows.tensors).items()}
        try:
            parity = check_parity(source, model, Rows(few, rows.origin, SEED))
        except OnnxtoolError as error:
            return Measured(conversion, None, str(error).replace(str(path), "the model").rstrip("."))
    off = max(output.rows_off if output.problem is None else parity.rows for output in parity.outputs)
    if parity.passed:
        return Measured(conversion, 0, "all rows agree")
    failing = ", ".join(output.name for output in parity.outputs if not output.passed)
    return Measured(conversion, max(off, 1), f"{off} of {parity.rows} rows are off ({failing})")


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
