"""Attention of PyTorch: without its fused kernels, over any number of dimensions, with any mask.

Its exporter knows 4 dimensions alone, batch, heads, length and width; and where a mask hides all there is to look at,
it has the mean in place of PyTorch's 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from onnx import TensorProto

from onnxtool.converters.torch.operators import onnx_ops, transposed


@contextmanager
def unfused() -> Iterator[None]:
    """Compute attention by operators that ONNX has, not by PyTorch's fused kernels for inference.

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


def translations() -> dict[Any, Callable[..., Any]]:
    """The `custom_translation_table` of `torch.onnx.export` for attention."""
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
        scale: Factor of the products; by default 1 over the root of the width.
        enable_gqa: Whether several queries share a key.
    """
    import onnx_ir as ir

    op = onnx_ops()
    if enable_gqa:
        key, value = (_shared(one, query.shape[-3]) for one in (key, value))
    rank = len(query.shape)
    scores = op.MatMul(query, transposed(key, rank))
    scores = op.Mul(scores, op.CastLike(query.shape[-1] ** -0.5 if scale is None else scale, query))
    nothing = op.CastLike(float("-inf"), query)
    if is_causal:
        ones = op.Expand(1.0, op.Shape(scores, start=-2))
        scores = op.Where(op.Equal(op.Trilu(ones, upper=0), 1.0), scores, nothing)
    if attn_mask is None:
        return op.MatMul(op.Softmax(scores, axis=-1), value)
    if attn_mask.dtype == ir.DataType.BOOL:
        scores = op.Where(attn_mask, scores, nothing)
        seen = op.Cast(op.ReduceMax(op.Cast(attn_mask, to=TensorProto.INT32), [-1]), to=TensorProto.BOOL)
    else:
        scores = op.Add(scores, attn_mask)
        seen = op.Greater(op.ReduceMax(attn_mask, [-1]), op.CastLike(nothing, attn_mask))
    return op.Where(seen, op.MatMul(op.Softmax(scores, axis=-1), value), op.CastLike(0.0, query))


def _shared(heads: Any, count: int) -> Any:
    """Each head as often as there are queries for it: [..., count, length, width]."""
    op = onnx_ops()
    before, after = op.Shape(heads, end=-3), op.Shape(heads, start=-2)
    shape = op.Concat(before, op.Constant(value_ints=[count]), after, axis=0)
    repeated = op.Constant(value_ints=[count // heads.shape[-3], 1, 1])
    return op.Reshape(op.Expand(op.Unsqueeze(heads, [-3]), repeated), shape)
