"""NumPy's array functions, except reductions, on traced arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from numpy import dtype as DType  # noqa: N812

from onnxtool.converters.tracing.arrays import (
    Traced,
    UntraceableError,
    astype,
    broadcast,
    concatenate,
    emit,
    implements,
    integers,
    is_rows,
    is_traced,
    lift,
    reshape,
    transpose,
)
from onnxtool.converters.tracing.ufuncs import WIDE

np: Any = numpy  # its annotations do not know traced arrays

implements(np.concatenate)(concatenate)
implements(np.transpose)(transpose)


@implements(np.reshape)
def _reshape(array: Any, /, shape: Any = None, order: str = "C", newshape: Any = None, **_: Any) -> Traced:
    return reshape(array, shape if shape is not None else newshape, order)


@implements(np.ravel)
def _ravel(array: Any, order: str = "C") -> Traced:
    return reshape(array, -1, order)


@implements(np.where)
def _where(condition: Any, x: Any = None, y: Any = None, /) -> Traced:
    if x is None or y is None:
        raise UntraceableError("numpy.where with a condition alone, which chooses some rows")
    condition = lift(condition)
    if condition.dtype != bool:
        condition = np.not_equal(condition, 0)
    values = [each if is_traced(each) or isinstance(each, int | float) else lift(each) for each in (x, y)]
    text = [isinstance(each, str) or getattr(each, "dtype", None) == object for each in (x, y)]
    if any(text):
        if not all(text):
            raise UntraceableError("numpy.where of text and numbers")
        dtype = np.dtype(object)
    else:
        dtype = np.result_type(*(each.dtype if is_traced(each) else each for each in values))
    yes, no = (astype(each if is_traced(each) else lift(each, dtype), dtype) for each in values)
    if dtype == bool:
        return np.logical_or(np.logical_and(condition, yes), np.logical_and(np.logical_not(condition), no))
    wide = np.dtype(WIDE.get(dtype.char, dtype)) if dtype.char in "ehHIQL" else dtype
    example = np.where(condition.example, yes.example, no.example)
    return astype(emit("Where", [condition, astype(yes, wide), astype(no, wide)], example.astype(wide)), dtype)


@implements(np.clip)
def _clip(array: Any, a_min: Any = None, a_max: Any = None, out: Any = None, **more: Any) -> Traced:
    low, high = more.get("min", a_min), more.get("max", a_max)
    found = lift(array)
    if low is not None:
        found = np.maximum(found, low)
    if high is not None:
        found = np.minimum(found, high)
    if out is not None:
        out.become(found)
    return found


@implements(np.select)
def _select(conditions: Sequence[Any], choices: Sequence[Any], default: Any = 0) -> Any:
    found = default
    if any(isinstance(each, str) for each in choices) and default == 0:
        found = "0"
    for condition, choice in reversed(list(zip(conditions, choices, strict=True))):
        found = np.where(condition, choice, found)
    return found


@implements(np.nan_to_num)
def _nan_to_num(x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Traced:
    x = lift(x)
    if x.dtype.kind != "f":
        return x
    limits = np.finfo(x.dtype)
    kind = x.dtype.type
    high, low = kind(limits.max if posinf is None else posinf), kind(limits.min if neginf is None else neginf)
    found = np.where(np.isnan(x), kind(nan), x)
    found = np.where(np.isinf(x), np.where(x > 0, high, low), found)
    if not copy:
        x.become(found)
    return found


@implements(np.isclose)
def _isclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    close = np.logical_and(np.abs(a - b) <= atol + rtol * np.abs(b), np.isfinite(b))
    return np.logical_or(close, np.equal(a, b))


@implements(np.isin)
def _isin(array: Any, values: Any, assume_unique: bool = False, invert: bool = False, **_: Any) -> Any:
    from onnxtool.converters.tracing.text import text_among

    known = np.asarray(list(values) if isinstance(values, set | frozenset) else values).ravel()
    array = lift(array)
    if array.dtype == object:
        found = text_among(array, [str(value) for value in known])
    else:
        found = np.any(np.equal(array[..., None], known), axis=-1)
    return np.logical_not(found) if invert else found


@implements(np.digitize)
def _digitize(x: Any, bins: Any, right: bool = False) -> Any:
    edges = np.asarray(bins)
    if len(edges) > 1 and edges[0] > edges[-1]:
        side = "left" if right else "right"  # of the reversed edges
        return len(edges) - np.searchsorted(edges[::-1], x, side="right" if side == "left" else "left")
    return np.searchsorted(edges, x, side="left" if right else "right")


@implements(np.searchsorted)
def _searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Any:
    """How many sorted values are not after; a NaN comes after all."""
    if is_traced(a):
        raise UntraceableError("numpy.searchsorted among values that are computed")
    edges = np.asarray(a) if sorter is None else np.asarray(a)[sorter]
    v = lift(v)
    if not len(edges):
        return astype(v * 0, np.dtype(np.int64))
    each_edge = v[..., None]
    after = np.less_equal(each_edge, edges) if side == "left" else np.less(each_edge, edges)
    return len(edges) - np.sum(after, axis=-1)


@implements(np.interp)
def _interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Any:
    if period is not None or is_traced(xp) or is_traced(fp):
        raise UntraceableError("numpy.interp with a period, or between points that are computed")
    xp, fp, x = np.asarray(xp, dtype=float), np.asarray(fp, dtype=float), astype(lift(x), np.dtype(float))
    slopes = np.diff(fp) / np.diff(xp) if len(xp) > 1 else np.zeros(1)
    place = np.clip(np.searchsorted(xp, x, side="right") - 1, 0, max(len(xp) - 2, 0))
    found = take(slopes, place) * (x - take(xp, place)) + take(fp, place)
    found = np.where(x < xp[0], fp[0] if left is None else left, found)
    found = np.where(np.equal(x, xp[-1]), fp[-1], found)
    return np.where(x > xp[-1], fp[-1] if right is None else right, found)


@implements(np.polyval)
def _polyval(p: Any, x: Any) -> Any:
    found = lift(x) * 0
    for factor in np.asarray(p):
        found = found * x + factor
    return found


@implements(np.take)
def take(array: Any, places: Any, axis: Any = None, mode: str = "raise", **_: Any) -> Traced:
    """Elements at places that may be computed: a table that is looked up."""
    array, places = lift(array), lift(places)
    if axis is None:
        array, axis = reshape(array, -1), 0
    axis = axis % array.ndim
    size = array.shape[axis]
    if is_rows(size) or places.dtype.kind not in "iu":
        raise UntraceableError("a choice of some rows")
    if mode == "clip":
        places = np.clip(places, 0, size - 1)
    elif mode == "wrap":
        places = np.remainder(places, size)
    safe = np.clip(places.example, -size, size - 1)
    indices = astype(places, np.dtype(np.int64))
    return emit("Gather", [array, indices], np.take(array.example, safe, axis=axis), axis=axis)


@implements(np.stack)
def _stack(arrays: Sequence[Any], axis: int = 0, **_: Any) -> Traced:
    return concatenate([np.expand_dims(lift(each), axis) for each in arrays], axis)


@implements(np.hstack)
def _hstack(arrays: Sequence[Any], **_: Any) -> Traced:
    parts = [np.atleast_1d(lift(each)) for each in arrays]
    return concatenate(parts, 0 if parts[0].ndim == 1 else 1)


@implements(np.vstack)
def _vstack(arrays: Sequence[Any], **_: Any) -> Traced:
    return concatenate([np.atleast_2d(lift(each)) for each in arrays], 0)


@implements(np.dstack)
def _dstack(arrays: Sequence[Any]) -> Traced:
    return concatenate([reshape(each, [*lift(each).shape, 1]) for each in arrays], 2)


@implements(np.column_stack)
def _column_stack(arrays: Sequence[Any]) -> Traced:
    parts = [lift(each) for each in arrays]
    return concatenate([part[:, None] if part.ndim == 1 else part for part in parts], 1)


@implements(np.append)
def _append(array: Any, values: Any, axis: Any = None) -> Traced:
    return (
        concatenate([array, values], axis)
        if axis is not None
        else concatenate([np.ravel(array), np.ravel(values)])
    )


@implements(np.insert)
def _insert(array: Any, place: Any, values: Any, axis: Any = None) -> Traced:
    if axis is None or not isinstance(place, int):
        raise UntraceableError("numpy.insert without an axis, or at several places")
    array = lift(array)
    before, after = np.split(array, [place], axis=axis)
    middle = lift(values)
    middle = np.expand_dims(middle, axis) if middle.ndim == array.ndim - 1 else middle
    target = [1 if each == axis % array.ndim else size for each, size in enumerate(array.shape)]
    return concatenate([before, broadcast(middle, target), after], axis)


@implements(np.delete)
def _delete(array: Any, places: Any, axis: Any = None) -> Traced:
    if axis is None:
        raise UntraceableError("numpy.delete without an axis")
    kept = np.delete(np.arange(array.shape[axis]), places)
    return np.take(array, kept, axis=axis)


@implements(np.split, np.array_split)
def _split(array: Any, sections: Any, axis: int = 0) -> list[Traced]:
    if is_rows(array.shape[axis]):
        raise UntraceableError("the rows cut into pieces")
    pieces = np.array_split(np.arange(array.shape[axis]), sections)
    return [np.take(array, piece, axis=axis) for piece in pieces]


@implements(np.hsplit)
def _hsplit(array: Any, sections: Any) -> list[Traced]:
    return _split(array, sections, axis=1)


@implements(np.expand_dims)
def _expand_dims(array: Any, axis: Any) -> Traced:
    array = lift(array)
    return reshape(array, np.expand_dims(array.example, axis).shape)


@implements(np.squeeze)
def _squeeze(array: Any, axis: Any = None) -> Traced:
    array = lift(array)
    return reshape(array, np.squeeze(array.example, axis).shape)


@implements(np.atleast_1d)
def _atleast_1d(*arrays: Any) -> Any:
    found = [each if each.ndim else reshape(each, (1,)) for each in map(lift, arrays)]
    return found if len(found) > 1 else found[0]


@implements(np.atleast_2d)
def _atleast_2d(*arrays: Any) -> Any:
    found = [each if each.ndim > 1 else reshape(each, (1, each.size)) for each in map(lift, arrays)]
    return found if len(found) > 1 else found[0]


@implements(np.swapaxes)
def _swapaxes(array: Any, first: int, second: int) -> Traced:
    order = list(range(array.ndim))
    order[first], order[second] = order[second], order[first]
    return transpose(array, order)


@implements(np.moveaxis)
def _moveaxis(array: Any, source: int, destination: int) -> Traced:
    order = [axis for axis in range(array.ndim) if axis != source % array.ndim]
    order.insert(destination % array.ndim, source % array.ndim)
    return transpose(array, order)


@implements(np.broadcast_to)
def _broadcast_to(array: Any, shape: Any, subok: bool = False) -> Traced:
    return broadcast(lift(array), (shape,) if isinstance(shape, int) else tuple(shape))


@implements(np.broadcast_arrays)
def _broadcast_arrays(*arrays: Any, **_: Any) -> tuple[Traced, ...]:
    parts = [lift(each) for each in arrays]
    shape = np.broadcast_shapes(*(part.shape for part in parts))
    return tuple(broadcast(part, shape) for part in parts)


@implements(np.tile)
def _tile(array: Any, reps: Any) -> Traced:
    array = lift(array)
    counts = [reps] if isinstance(reps, int) else list(reps)
    array = reshape(array, [1] * max(0, len(counts) - array.ndim) + list(array.shape))
    counts = [1] * (array.ndim - len(counts)) + counts
    for axis, count in enumerate(counts):
        if count != 1 and is_rows(count):
            target = [count if place == axis else size for place, size in enumerate(array.shape)]
            array = broadcast(array, target)
        elif count != 1:
            array = concatenate([array] * count, axis)
    return array


@implements(np.repeat)
def _repeat(array: Any, repeats: Any, axis: Any = None) -> Traced:
    array = lift(array)
    if axis is None:
        array, axis = reshape(array, -1), 0
    if is_rows(array.shape[axis]):
        raise UntraceableError("rows that are repeated: a model gives one row for each that it gets")
    if isinstance(repeats, int) and is_rows(repeats) and array.shape[axis] == 1:
        return broadcast(array, [repeats if place == axis else size for place, size in enumerate(array.shape)])
    places = np.repeat(np.arange(array.shape[axis]), repeats)
    return np.take(array, places, axis=axis)


@implements(np.flip, np.fliplr)
def _flip(array: Any, axis: Any = 1) -> Traced:
    axes = range(array.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
    for each in axes:
        places = np.arange(array.shape[each])[::-1]
        array = np.take(array, places, axis=each)
    return array


@implements(np.roll)
def _roll(array: Any, shift: int, axis: Any = None) -> Traced:
    if axis is None or is_rows(array.shape[axis]):
        raise UntraceableError("rows that are moved: what a row gives would depend on the others")
    return np.take(array, np.roll(np.arange(array.shape[axis]), shift), axis=axis)


@implements(np.zeros_like)
def _zeros_like(array: Any, dtype: Any = None, **_: Any) -> Traced:
    return _filled(array, 0, dtype)


@implements(np.empty_like)
def _empty_like(array: Any, dtype: Any = None, **_: Any) -> Traced:
    return _filled(array, 0, dtype)


@implements(np.ones_like)
def _ones_like(array: Any, dtype: Any = None, **_: Any) -> Traced:
    return _filled(array, 1, dtype)


@implements(np.full_like)
def _full_like(array: Any, fill_value: Any, dtype: Any = None, **_: Any) -> Traced:
    return _filled(array, fill_value, dtype)


def _filled(array: Any, value: Any, dtype: Any) -> Traced:
    return filled(array.shape, value, array.dtype if dtype is None else dtype)


def filled(shape: Any, value: Any, dtype: Any) -> Traced:
    """An array of one value, with as many rows as come in."""
    if np.dtype(dtype).kind in "US":
        dtype = object
    sizes = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    constant = np.empty((), dtype)
    constant[()] = "" if dtype == object and value == 0 else value
    return broadcast(lift(constant), [int(size) for size in sizes])


@implements(np.copy)
def _copy(array: Any, *_: Any, **__: Any) -> Traced:
    return lift(array).copy()


@implements(np.around, np.round)
def _round(array: Any, decimals: int = 0, out: Any = None) -> Any:
    array = lift(array)
    if array.dtype.kind != "f":
        return array
    factor = array.dtype.type(10.0 ** abs(decimals))
    if decimals == 0:
        return np.rint(array)
    return np.rint(array * factor) / factor if decimals > 0 else np.rint(array / factor) * factor


@implements(np.fix)
def _fix(array: Any, out: Any = None) -> Any:
    return np.trunc(array)


@implements(np.sinc)
def _sinc(x: Any) -> Any:
    y = np.pi * np.where(x == 0, 1.0e-20, x)
    return np.sin(y) / y


@implements(np.dot)
def _dot(a: Any, b: Any, out: Any = None) -> Any:
    a, b = lift(a), lift(b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    return np.matmul(a, b)


@implements(np.einsum)
def _einsum(equation: Any, *arrays: Any, **_: Any) -> Traced:
    if not isinstance(equation, str):
        raise UntraceableError("numpy.einsum without an equation")
    parts = [lift(each) for each in arrays]
    dtype = np.result_type(*(part.dtype for part in parts))
    parts = [astype(part, dtype) for part in parts]
    example = np.einsum(equation, *(part.example for part in parts))
    return emit("Einsum", parts, example, equation=equation.replace(" ", ""))


@implements(np.outer)
def _outer(a: Any, b: Any, out: Any = None) -> Any:
    return np.ravel(a)[:, None] * np.ravel(b)[None, :]


@implements(np.diff)
def _diff(array: Any, n: int = 1, axis: int = -1, **more: Any) -> Any:
    if more or is_rows(array.shape[axis]):
        raise UntraceableError("differences between rows: what a row gives would depend on the others")
    for _ in range(n):
        count = array.shape[axis]
        later, earlier = (np.take(array, np.arange(start, count - 1 + start), axis=axis) for start in (1, 0))
        array = np.not_equal(later, earlier) if array.dtype == bool else later - earlier
    return array


@implements(np.shape)
def _shape(array: Any) -> tuple[int, ...]:
    return tuple(array.shape)


@implements(np.ndim)
def _ndim(array: Any) -> int:
    return int(array.ndim)


@implements(np.size)
def _size(array: Any, axis: Any = None) -> int:
    return int(array.size if axis is None else array.shape[axis])


@implements(np.result_type)
def _result_type(*arrays: Any) -> DType[Any]:
    return np.result_type(*(each.dtype if is_traced(each) else each for each in arrays))


@implements(np.iscomplexobj)
def _iscomplexobj(array: Any) -> bool:
    return False


@implements(np.real)
def _real(array: Any) -> Any:
    return array


@implements(np.may_share_memory, np.shares_memory)
def _shares(*_: Any, **__: Any) -> bool:
    return False


@implements(np.isneginf)
def _isneginf(x: Any, out: Any = None) -> Any:
    return np.logical_and(np.isinf(x), np.less(x, 0))


@implements(np.isposinf)
def _isposinf(x: Any, out: Any = None) -> Any:
    return np.logical_and(np.isinf(x), np.greater(x, 0))


__all__ = ["filled", "integers", "take"]
