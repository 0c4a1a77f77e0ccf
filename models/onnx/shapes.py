"""ONNX's inference of types and shapes, where a model may ask it for anything."""

from __future__ import annotations

import onnx

from onnxtool.models.onnx.isolated import WORKER, is_isolated, rewrite_isolated


def with_inferred_shapes(model: onnx.ModelProto, *, values: bool = False) -> onnx.ModelProto:
    """A copy of a model with the types and shapes that follow from its operators.

    Within `isolated` it is made in the process of the model: what is computed of constants may take all memory.

    Args:
        model: Of at most 2 GB.
        values: Whether shapes that are computed in the graph are followed too.

    Raises:
        ModelError: it ends its process, or takes more than its limits.
        RuntimeError: operators do not fit each other.
    """
    if not is_isolated():
        try:
            return onnx.shape_inference.infer_shapes(model, data_prop=values)
        except onnx.shape_inference.InferenceError as error:
            raise RuntimeError(str(error)) from error
    request = {"request": "shapes", "values": values}
    return onnx.load_from_string(rewrite_isolated(WORKER, request, model.SerializeToString()))
