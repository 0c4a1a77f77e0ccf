"""Operators of PyTorch that its exporter has no ONNX for, or only for some sizes.

Each function is named as the operator, takes its arguments in their order, and computes the same by ONNX's operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto


def translations() -> dict[Any, Callable[..., Any]]:
    """The `custom_translation_table` of `torch.onnx.export` for own operators."""
    import torch
    from torch.ops import aten

    # Hugging Face's own operator for what PyTorch's does in bfloat16 alone.
    fallback = getattr(torch.ops.transformers, "grouped_mm_fallback", None)
    return ({fallback.default: grouped_mm} if fallback is not None else {}) | {
        aten.adaptive_max_pool2d.default: adaptive_max_pool,
        aten.adaptive_max_pool3d.default: adaptive_max_pool,
        aten._adaptive_avg_pool2d.default: adaptive_avg_pool,
        aten._adaptive_avg_pool3d.default: adaptive_avg_pool,
        aten._grouped_mm.default: grouped_mm,
        aten._cdist_forward.default: cdist,
        aten.atan2.default: atan2,
        aten.cummax.default: partial(cumulated_extreme, "GreaterOrEqual"),
        aten.cummin.default: partial(cumulated_extreme, "LessOrEqual"),
        aten.cumprod.default: cumprod,
        aten.hypot.default: hypot,
        aten.kthvalue.default: kthvalue,
        aten.inverse.default: inverse,
        aten.linalg_cholesky.default: cholesky,
        aten.linalg_inv.default: inverse,
        aten.linalg_solve.default: solve,
        aten.median.default: median_of_all,
        aten.median.dim: median,
        aten.mode.default: mode,
        aten.remainder.Scalar: remainder,
        aten.rrelu_with_noise_functional.default: rrelu,
        aten.rsub.Scalar: rsub,
        aten.searchsorted.Tensor: searchsorted,
        aten.searchsorted.Scalar: searchsorted,
        aten.unfold_backward.default: overlap_add,
    }


def onnx_ops() -> Any:
    """ONNX's operators; their annotations do not know that numbers become constants."""
    from onnxscript import opset18

    return opset18


# -- Pooling to a given size ------------------------------------------------------------------------------------


def adaptive_avg_pool(images: Any, output_size: Sequence[int]) -> Any:
    """The mean of each of `output_size` windows of every spatial axis.

    Args:
        images: [..., spatial axes].
        output_size: Windows of each spatial axis.
    """
    op = onnx_ops()
    rank = len(images.shape)
    letters = "abcdefgh"[:rank]
    for axis, bins in enumerate(output_size, rank - len(output_size)):
        size = op.Shape(images, start=axis, end=axis + 1)
        start, end = _windows(size, bins)
        places = op.Range(0, op.Squeeze(size), 1)
        within = op.And(op.GreaterOrEqual(places, start), op.Less(places, end))  # [bins, size]
        to = letters.replace(letters[axis], "z")
        total = op.Einsum(images, op.CastLike(within, images), equation=f"{letters},z{letters[axis]}->{to}")
        counts = op.Reshape(op.CastLike(op.Sub(end, start), images), [-1] + [1] * (rank - 1 - axis))
        images = op.Div(total, counts)
    return images


def adaptive_max_pool(images: Any, output_size: Sequence[int]) -> tuple[Any, Any]:
    """The maximum of each window, and its place within all spatial axes; see `adaptive_avg_pool`."""
    op = onnx_ops()
    rank, axes = len(images.shape), len(output_size)
    leading = rank - axes
    windows, place = images, op.Constant(value_int=0)
    for number, bins in enumerate(output_size):
        size = op.Shape(images, start=leading + number, end=leading + number + 1)
        start, end = _windows(size, bins)
        longest = op.ReduceMax(op.Sub(end, start), keepdims=0)
        places = op.Min(op.Add(start, op.Range(0, longest, 1)), op.Sub(end, 1))  # [bins, longest]: the last, again
        windows = op.Gather(windows, places, axis=leading + 2 * number)
        shape = [1, 1] * number + [bins, -1] + [1, 1] * (axes - 1 - number)
        place = op.Add(op.Mul(place, size), op.Reshape(places, shape))
    spatial = [2 * number for number in range(axes)]  # before the windows' own
    within = [axis + 1 for axis in spatial]
    order = [*range(leading), *(leading + axis for axis in spatial + within)]
    windows = op.Reshape(op.Transpose(windows, perm=order), [0] * leading + [*output_size, -1])
    place = op.Reshape(op.Transpose(place, perm=spatial + within), [*output_size, -1])
    largest = op.ArgMax(windows, axis=-1, keepdims=1)
    chosen = op.GatherElements(op.Expand(place, op.Shape(windows)), largest, axis=-1)
    return op.ReduceMax(windows, [-1], keepdims=0), op.Squeeze(chosen, [-1])


def _windows(size: Any, bins: int) -> tuple[Any, Any]:
    """First place, and the one after the last, of each window of an axis: [bins, 1] each."""
    op = onnx_ops()
    number = op.Constant(value_ints=list(range(bins)))
    start = op.Div(op.Mul(number, size), bins)
    end = op.Div(op.Add(op.Mul(op.Add(number, 1), size), bins - 1), bins)
    return op.Unsqueeze(start, [1]), op.Unsqueeze(end, [1])


# -- Order -------------------------------------------------------------------------------------------------------


def kthvalue(values: Any, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Any, Any]:
    """The k-th smallest along an axis, and its place."""
    op = onnx_ops()
    found = op.TopK(values, op.Constant(value_ints=[k]), axis=dim, largest=0)
    return _kept(tuple(op.Slice(one, [k - 1], [k], [dim]) for one in found), dim, keepdim)


def median(values: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
    """The lower of both in the middle along an axis, and its place."""
    op = onnx_ops()
    size = op.Shape(values, start=dim, end=dim + 1 or None)
    half = op.Div(op.Add(size, 1), 2)
    found = op.TopK(values, half, axis=dim, largest=0)
    return _kept(tuple(op.Slice(one, op.Sub(half, 1), half, [dim]) for one in found), dim, keepdim)


def median_of_all(values: Any) -> Any:
    """The lower of both in the middle of all."""
    return median(onnx_ops().Reshape(values, [-1]), 0)[0]


def mode(values: Any, dim: int = -1, keepdim: bool = False) -> tuple[Any, Any]:
    """The most frequent along an axis, of several the smallest, and its last place."""
    op = onnx_ops()
    rank = len(values.shape)
    order = [axis for axis in range(rank) if axis != dim % rank]
    last = op.Transpose(values, perm=[*order, dim % rank])
    same = op.Equal(op.Unsqueeze(last, [-1]), op.Unsqueeze(last, [-2]))
    counts = op.ReduceSum(op.Cast(same, to=TensorProto.INT64), [-1], keepdims=0)
    frequent = op.Equal(counts, op.ReduceMax(counts, [-1]))
    found = op.ReduceMin(op.Where(frequent, last, op.ReduceMax(last, [-1])), [-1])
    place = op.ArgMax(
        op.Cast(op.Equal(last, found), to=TensorProto.INT64), axis=-1, keepdims=1, select_last_index=1
    )
    back = [*range(rank - 1)]
    back.insert(dim % rank, rank - 1)
    return _kept(tuple(op.Transpose(one, perm=back) for one in (found, place)), dim, keepdim)


def _kept(found: tuple[Any, ...], dim: int, keepdim: bool) -> tuple[Any, Any]:
    first, second = found if keepdim else (onnx_ops().Squeeze(one, [dim]) for one in found)
    return first, second


def searchsorted(  # noqa: PLR0917 - ordered as PyTorch's operator
    sorted_sequence: Any,
    values: Any,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Any:
    """The number of elements of a sorted sequence that are less than each value; with `right`, less or equal.

    Args:
        sorted_sequence: [..., length], or [length] for all values.
        values: [..., count].
        out_int32: Whether the result is int32, and not int64.
        right: Whether equals count.
        side: "right" means the same.
        sorter: Places that sort the sequence.
    """
    op = onnx_ops()
    if sorter is not None:
        sorted_sequence = op.GatherElements(sorted_sequence, sorter, axis=-1)
    sequence = sorted_sequence if len(sorted_sequence.shape) == 1 else op.Unsqueeze(sorted_sequence, [-2])
    compare = op.LessOrEqual if right or side == "right" else op.Less
    below = compare(sequence, op.CastLike(op.Unsqueeze(values, [-1]), sequence))
    return op.ReduceSum(op.Cast(below, to=TensorProto.INT32 if out_int32 else TensorProto.INT64), [-1], keepdims=0)


# -- Along an axis -----------------------------------------------------------------------------------------------
# In as many steps as the length has bits: each takes in what lies twice as far back.


def cumprod(values: Any, dim: int, dtype: int | None = None) -> Any:
    """The product of all up to each place along an axis of known length."""
    op = onnx_ops()
    length = _length(values, dim)
    values = values if dtype is None else op.Cast(values, to=dtype)
    for step in _doubling(length):
        later, earlier, head = _strided(values, step, length, dim)
        values = op.Concat(head, op.Mul(later, earlier), axis=dim)
    return values


def cumulated_extreme(better: str, values: Any, dim: int) -> tuple[Any, Any]:
    """The extreme of all up to each place along an axis of known length, and where it was last."""
    op = onnx_ops()
    length, rank = _length(values, dim), len(values.shape)
    shape = [length if axis == dim % rank else 1 for axis in range(rank)]
    numbers = op.Reshape(op.Constant(value_ints=list(range(length))), shape)
    places = op.Expand(numbers, op.Shape(values))
    for step in _doubling(length):
        later, earlier, head = _strided(values, step, length, dim)
        place, before, first = _strided(places, step, length, dim)
        kept = getattr(op, better)(later, earlier)
        values = op.Concat(head, op.Where(kept, later, earlier), axis=dim)
        places = op.Concat(first, op.Where(kept, place, before), axis=dim)
    return values, places


def _doubling(length: int) -> Iterator[int]:
    """1, 2, 4... up to a length."""
    return (1 << bit for bit in range((length - 1).bit_length()))


def _strided(values: Any, step: int, length: int, dim: int) -> list[Any]:
    """All but the first `step`, all but as many of the last, and those first."""
    parts = ((step, length), (0, length - step), (0, step))
    return [onnx_ops().Slice(values, [start], [end], [dim]) for start, end in parts]


def _length(values: Any, dim: int) -> int:
    length = values.shape[dim]
    if not isinstance(length, int):
        raise NotImplementedError(f"dimension {dim} must have its size, and not be any")
    return length


# -- Signals -----------------------------------------------------------------------------------------------------


def overlap_add(frames: Any, input_sizes: Any, dim: int, size: int, step: int) -> Any:
    """The sum of windows at their places, which the inverse of a spectrogram is made of.

    Args:
        frames: [..., windows, ..., size], with the windows at `dim`.
        input_sizes: Sizes of the result, which has `input_sizes[dim]` there.
        dim: Axis of the windows.
        size: Size of a window.
        step: From a window to the next.
    """
    op = onnx_ops()
    rank = len(frames.shape)
    dim %= rank - 1
    others = [axis for axis in range(rank - 1) if axis != dim]
    last = op.Transpose(frames, perm=[*others, rank - 1, dim])
    kernel = op.CastLike(op.Constant(value=_tensor(np.eye(size, dtype=np.float32)[:, None])), frames)
    added = op.ConvTranspose(op.Reshape(last, [-1, size, 0]), kernel, strides=[step])
    length = op.Gather(input_sizes, [dim]) if not isinstance(input_sizes, list | tuple) else input_sizes[dim]
    missing = op.Sub(op.Reshape(length, [1]), op.Shape(added, start=2))
    added = op.Pad(added, op.Concat(op.Constant(value_ints=[0] * 5), missing, axis=0))
    shape = op.Concat(op.Shape(last, end=-2), op.Constant(value_ints=[-1]), axis=0)
    order = [*range(len(others))]
    order.insert(dim, len(others))
    return op.Transpose(op.Reshape(added, shape), perm=order)


# -- Linear algebra ----------------------------------------------------------------------------------------------


def grouped_mm(rows: Any, weights: Any, offs: Any, bias: Any = None, out_dtype: int | None = None) -> Any:
    """The product of each group of rows with its own matrix: a mixture of experts.

    Args:
        rows: [count, width], those of a group together.
        weights: [groups, width, any].
        offs: Where each group ends: [groups].
        bias: None.
        out_dtype: None, or the dtype of the rows.
    """
    op = onnx_ops()
    if len(rows.shape) != 2 or bias is not None:
        raise NotImplementedError("a grouped product takes rows of two dimensions")
    ends = op.Cast(offs, to=TensorProto.INT64)
    start, parts = op.Constant(value_ints=[0]), []
    for group in range(_length(weights, 0)):
        end = op.Slice(ends, [group], [group + 1])
        parts.append(op.MatMul(op.Slice(rows, start, end, [0]), op.Gather(weights, group)))
        start = end
    return op.Concat(*parts, axis=0)


def inverse(matrix: Any) -> Any:
    """The inverse of square matrices of known size."""
    op = onnx_ops()
    size = _length(matrix, -1)
    ones = op.Constant(value=_tensor(np.eye(size, dtype=np.float32)))
    return _eliminated(matrix, op.Expand(op.CastLike(ones, matrix), op.Shape(matrix)), size)


def solve(matrix: Any, right: Any, left: bool = True) -> Any:
    """X of matrix X = right, or of X matrix = right, for square matrices of known size."""
    op = onnx_ops()
    size, rank = _length(matrix, -1), len(matrix.shape)
    if len(right.shape) < rank:
        return op.Squeeze(_eliminated(matrix, op.Unsqueeze(right, [-1]), size), [-1])
    if left:
        return _eliminated(matrix, right, size)
    return transposed(_eliminated(transposed(matrix, rank), transposed(right, rank), size), rank)


def _eliminated(matrix: Any, right: Any, size: int) -> Any:
    """Gauss and Jordan's elimination, with the largest of a column as its pivot.

    Args:
        matrix: [..., size, size].
        right: [..., size, columns].
        size: Size of the matrix.
    """
    op = onnx_ops()
    rows = op.Constant(value=_tensor(np.arange(size)[:, None]))
    joined = op.Concat(matrix, right, axis=-1)
    for step in range(size):
        rest = op.Slice(op.Abs(op.Slice(joined, [step], [step + 1], [-1])), [step], [size], [-2])
        pivot = op.Add(op.ArgMax(rest, axis=-2, keepdims=1), step)
        here = op.Equal(rows, step)
        order = op.Where(here, pivot, op.Where(op.Equal(rows, pivot), step, rows))
        joined = op.GatherElements(joined, op.Expand(order, op.Shape(joined)), axis=-2)
        column = op.Slice(joined, [step], [step + 1], [-1])
        row = op.Slice(joined, [step], [step + 1], [-2])
        row = op.Div(row, op.Slice(row, [step], [step + 1], [-1]))
        joined = op.Where(here, row, op.Sub(joined, op.Mul(column, row)))
    return op.Slice(joined, [size], [np.iinfo(np.int64).max], [-1])


def cholesky(matrix: Any, upper: bool = False) -> Any:
    """The factor of positive definite matrices of known size, a column at a time."""
    op = onnx_ops()
    size, rank = _length(matrix, -1), len(matrix.shape)
    rows = op.Constant(value=_tensor(np.arange(size)[:, None]))
    rest, columns = matrix, []
    for step in range(size):
        column = op.Slice(rest, [step], [step + 1], [-1])
        root = op.Sqrt(op.Slice(column, [step], [step + 1], [-2]))
        column = op.Where(op.Less(rows, step), op.CastLike(0.0, column), op.Div(column, root))
        rest = op.Sub(rest, op.Mul(column, transposed(column, rank)))
        columns.append(column)
    factor = op.Concat(*columns, axis=-1)
    return transposed(factor, rank) if upper else factor


def transposed(matrix: Any, rank: int) -> Any:
    """Matrices with rows for columns: [..., columns, rows]."""
    return onnx_ops().Transpose(matrix, perm=[*range(rank - 2), rank - 1, rank - 2])


def _tensor(array: NDArray[np.generic]) -> Any:
    import onnx_ir as ir

    return ir.tensor(array)


# -- Arithmetic --------------------------------------------------------------------------------------------------


def atan2(opposite: Any, adjacent: Any) -> Any:
    """The angle of each pair, with the signs of zeros; PyTorch's exporter has -pi for (0, -1)."""
    op = onnx_ops()
    zero, one = op.CastLike(0.0, opposite), op.CastLike(1.0, opposite)

    def is_negative(number: Any) -> Any:
        return op.Or(op.Less(number, zero), op.Less(op.Div(one, number), zero))

    height, width = op.Abs(opposite), op.Abs(adjacent)
    same = op.Where(op.Equal(height, zero), zero, one)  # 0 by 0, and infinity by infinity
    angle = op.Atan(op.Where(op.Equal(height, width), same, op.Div(height, width)))
    angle = op.Where(is_negative(adjacent), op.Sub(op.CastLike(np.pi, angle), angle), angle)
    return op.Mul(angle, op.Where(is_negative(opposite), op.Neg(one), one))  # of a zero, Where loses the sign


def cdist(first: Any, second: Any, p: float, compute_mode: int | None = None) -> Any:
    """Distances of the p-norm between the rows of two matrices.

    Args:
        first: [..., rows, width].
        second: [..., others, width].
        p: The norm, 0 or more.
        compute_mode: How PyTorch computes it.
    """
    op = onnx_ops()
    differences = op.Abs(op.Sub(op.Unsqueeze(first, [-2]), op.Unsqueeze(second, [-3])))
    if p == 2:
        return op.ReduceL2(differences, [-1], keepdims=0)
    if p == float("inf"):
        return op.ReduceMax(differences, [-1], keepdims=0)
    if p == 1:
        return op.ReduceSum(differences, [-1], keepdims=0)
    if p == 0:
        return op.ReduceSum(op.Sign(differences), [-1], keepdims=0)
    powers = op.ReduceSum(op.Pow(differences, op.CastLike(p, differences)), [-1], keepdims=0)
    return op.Pow(powers, op.CastLike(1 / p, differences))


def hypot(first: Any, second: Any) -> Any:
    """The root of the sum of both squares, which do not overflow."""
    op = onnx_ops()
    first, second = op.Abs(first), op.Abs(second)
    larger, smaller = op.Max(first, second), op.Min(first, second)
    ratio = op.Div(smaller, op.Where(op.Equal(larger, op.CastLike(0.0, larger)), op.CastLike(1.0, larger), larger))
    return op.Mul(larger, op.Sqrt(op.Add(op.Mul(ratio, ratio), op.CastLike(1.0, larger))))


def remainder(values: Any, other: Any) -> Any:
    """The remainder with the sign of `other`, which may be the size of a dimension too."""
    op = onnx_ops()
    whole = values.dtype.is_integer() and not isinstance(other, float)
    values, other = _promoted(values, other)
    if whole:
        return op.Mod(values, other)
    left = op.Mod(values, other, fmod=1)
    return op.Where(op.Less(op.Mul(left, other), op.CastLike(0.0, left)), op.Add(left, other), left)


def rsub(values: Any, other: Any, alpha: float = 1) -> Any:
    """`other - alpha * values`: of whole numbers from a real one, as in 1.0 - mask, it is real."""
    op = onnx_ops()
    values, other = _promoted(values, other)
    return op.Sub(other, values if alpha == 1 else op.Mul(values, op.CastLike(alpha, values)))


def _promoted(values: Any, other: Any) -> tuple[Any, Any]:
    """A tensor and a number in the dtype of their result."""
    op = onnx_ops()
    if isinstance(other, float) and not values.dtype.is_floating_point():
        values = op.Cast(values, to=TensorProto.FLOAT)
    return values, op.CastLike(other, values)


def rrelu(  # noqa: PLR0917 - ordered as PyTorch's operator
    values: Any,
    noise: Any,
    lower: float = 0.125,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Any = None,
) -> tuple[Any, Any]:
    """The slope of a model that predicts, in the middle of both bounds."""
    return onnx_ops().LeakyRelu(values, alpha=(lower + upper) / 2), noise
