"""Attention of PyTorch: without its fused kernels, and over any number of dimensions.

Its exporter knows 4 alone: batch, heads, length and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def unfused() -> Iterator[None]:
    """Have attention computed by operators that ONNX has, not by PyTorch's fused kernels for inference.

    A TransformerEncoder also looks whether its mask is the causal one, as a hint to these: a branch on values.
    """
    from torch.backends import mha
    from torch.nn.modules import transformer

    encoder = transformer.TransformerEncoder
    fast, detect, forward = mha.get_fastpath_enabled(), transformer._detect_is_causal_mask, encoder.forward
    mha.set_fastpath_enabled(False)
    transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: is_causal is True
    if fast:
        encoder.forward = _blanking(forward)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(fast)
        transformer._detect_is_causal_mask, encoder.forward = detect, forward


def _blanking(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`TransformerEncoder.forward`, which writes 0 where its fused kernels do.

    They leave out what `src_key_padding_mask` hides, as long as each row hides its end and no more.
    """
    import torch

    def blanking(
        self: Any, src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool | None = None
    ) -> Any:
        fused = getattr(self, "use_nested_tensor", False) and not self.layers[0].training
        if not fused or src.dim() != 3 or mask is not None or src_key_padding_mask is None:
            return forward(self, src, mask, src_key_padding_mask, is_causal)
        norm, self.norm = self.norm, None
        try:
            output = forward(self, src, None, src_key_padding_mask, is_causal)
        finally:
            self.norm = norm
        hidden = src_key_padding_mask if src_key_padding_mask.dtype == torch.bool else src_key_padding_mask != 0
        if getattr(self, "mask_check", True):
            at_the_end = (hidden[:, 1:] | ~hidden[:, :-1]).all()
            output = torch.where((hidden & at_the_end).unsqueeze(-1), 0.0, output)
        else:
            output = torch.where(hidden.unsqueeze(-1), 0.0, output)
        return output if norm is None else norm(output)

    return blanking


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
