"""Dimensions at whose other sizes a converted model does not agree with its source: they are not left open."""

from __future__ import annotations

import json

import onnx

from onnxtool.api.proving import ProofOptions, remember, sizes_parity
from onnxtool.converters.graph.finish import write
from onnxtool.models.onnx.artifact import BOUNDS, OnnxModel, bounds_of
from onnxtool.models.rows.inputs import sizes_of
from onnxtool.models.source import SourceModel
from onnxtool.reports import findings
from onnxtool.reports.model import DimensionSizes, Parity
from onnxtool.validators.parity.pairs import Rows


def settle_dimensions(
    model: OnnxModel, source: SourceModel, rows: Rows, options: ProofOptions, parity: Parity
) -> tuple[OnnxModel, Parity, list[str]]:
    """Give a size, or bounds, to each dimension at some of whose sizes the two models do not agree.

    Where the ONNX model fails below or above the sizes at which they agree, the metadata states these as its bounds.
    Where it answers wrongly, the dimension gets the size of the rows, so that ONNX Runtime refuses every other.

    Args:
        model: The ONNX model, in a file, which is written again where a dimension changes.
        source: The reference.
        rows: The rows that were compared.
        options: The options of the proof.
        parity: The comparison with the source.

    Returns:
        The model, the last comparison, and a sentence for each dimension that is no longer open.
    """
    settled = []
    sizes = dict(sizes_of(model.inputs, rows.tensors))
    if rows.later is not None and rows.seed is None:  # the user's rows have several lengths, and all must run
        return model, parity, []
    while failing := next((found for found in parity.sizes if found.failures and found.dimension in sizes), None):
        name = failing.dimension
        bounds = _bounds(failing)
        if bounds is None:
            _fix(model.proto, name, sizes[name])
            change = f"is fixed at {sizes[name]}"
        else:
            remember(model.proto, {BOUNDS: json.dumps({**bounds_of(model.metadata), name: bounds})})
            change = f"is for {findings.bounds(*bounds)}"
        settled.append(f"The dimension {name} {change}. {findings.failing_sizes(failing)}")
        write(model.proto, model.path)
        model = OnnxModel(model.path, model.proto)  # which has the new dimensions and metadata
        agreed = parity.model_copy(update={"passed": True, "sizes": []})
        parity = sizes_parity(agreed, model, source, rows, options)
    return model, parity, settled


def _bounds(found: DimensionSizes) -> tuple[int | None, int | None] | None:
    """The sizes between which the two models agree, where the ONNX model refuses what is beyond by itself."""
    failing = [failure.size for failure in found.failures]
    low, high = min(found.compared), max(found.compared)
    if not all(failure.raised for failure in found.failures) or any(low < size < high for size in failing):
        return None
    return low if min(failing) < low else found.low, high if max(failing) > high else found.high


def _fix(model: onnx.ModelProto, name: str, size: int) -> None:
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == name:
                dim.dim_value = size
