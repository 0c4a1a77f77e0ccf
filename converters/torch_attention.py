"""Attention over any number of dimensions: PyTorch's exporter knows 4 alone, batch, heads, length and width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def is_missing(error: BaseException | None) -> bool:
    """Whether the exporter gave up on attention of other than 4 dimensions."""
    while error is not None:
        if "only 4D query, key, and value are supported" in str(error):
            return True
        error = error.__cause__
    return False


def translations() -> dict[Any, Callable[..., Any]]:
    """What `torch.onnx.export` takes as `custom_translation_table`."""
    import torch

    return {torch.ops.aten.scaled_dot_product_attention.default: _attention}


def _attention(  # noqa: PLR0917 - ordered as PyTorch's operator
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(query keys^T * scale + mask) values, as `torch.nn.functional.scaled_dot_product_attention` defines it.

    Args:
        query: [..., target, width].
        key: [..., source, width].
        value: [..., source, any].
        attn_mask: Floats to add, or True where a source is looked at; broadcast to [..., target, source].
        dropout_p: 0 in a model that predicts.
        is_causal: Whether a target looks at sources up to its own place only.
        scale: Of the products; by default the root of the width, inverse.
        enable_gqa: Whether several queries share a key.
    """
    import onnx_ir as ir
    from onnxscript import opset18

    op: Any = opset18  # whose annotations do not know that numbers become constants

    if enable_gqa and len(query.shape) != 4:
        raise NotImplementedError("attention with enable_gqa takes 4 dimensions")
    rank = len(key.shape)
    scores = op.MatMul(query, op.Transpose(key, perm=[*range(rank - 2), rank - 1, rank - 2]))
    scores = op.Mul(scores, op.CastLike(query.shape[-1] ** -0.5 if scale is None else scale, query))
    if is_causal:
        ones = op.Expand(1.0, op.Shape(scores, start=-2))
        scores = op.Where(op.Equal(op.Trilu(ones, upper=0), 1.0), scores, op.CastLike(float("-inf"), query))
    elif attn_mask is not None and attn_mask.dtype == ir.DataType.BOOL:
        scores = op.Where(attn_mask, scores, op.CastLike(float("-inf"), query))
    elif attn_mask is not None:
        scores = op.Add(scores, attn_mask)
    return op.MatMul(op.Softmax(scores, axis=-1), value)
