"""NumPy's reductions on traced arrays, each over dimensions that count no rows.

A statistic of all rows that come together would give a row another answer in other company, so it is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from onnxtool.converters.tracing.arrays import (
    Traced,
    UntraceableError,
    astype,
    concatenate,
    current,
    emit,
    implements,
    integers,
    is_rows,
    lift,
)

OVER_ROWS = (
    "a statistic over all rows that come together, which another batch would change. "
    "Compute it in fit, and keep it in an attribute"
)

np: Any = numpy  # its annotations do not know traced arrays


def _axes(array: Traced, axis: Any) -> list[int]:
    axes = range(array.ndim) if axis is None else [axis] if isinstance(axis, int | np.integer) else axis
    found = [int(each) % array.ndim for each in axes]
    if any(is_rows(array.shape[each]) for each in found):
        raise UntraceableError(OVER_ROWS)
    return found


def _reduce(kind: str, array: Traced, axis: Any, keepdims: bool, example: Any) -> Traced:
    axes = _axes(array, axis)
    if kind == "ReduceSum" or current().recording.opset >= 18:
        return emit(kind, [array, integers(*axes)], example, keepdims=int(keepdims))
    return emit(kind, [array], example, axes=axes, keepdims=int(keepdims))


def _reduction(kind: str, function: Any) -> Callable[..., Any]:
    """A reduction that is an operator, in the dtype that NumPy gives it."""

    def reduction(
        array: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, **more: Any
    ) -> Any:
        if more:
            raise UntraceableError(f"numpy.{function.__name__} with {', '.join(more)}")
        array = lift(array)
        if dtype is not None:
            array = astype(array, np.dtype(dtype))
        _axes(array, axis)
        with np.errstate(all="ignore"):
            example = function(array.example, axis=axis, keepdims=bool(keepdims is True))
        target = np.asarray(example).dtype
        wide = np.dtype(np.int64 if target.kind in "iub" else np.float32 if target == np.float16 else target)
        found = _reduce(kind, astype(array, wide), axis, keepdims is True, np.asarray(example).astype(wide))
        return astype(found, target)

    return reduction


for _function, _kind in (
    (np.sum, "ReduceSum"), (np.prod, "ReduceProd"), (np.mean, "ReduceMean"),
    (np.max, "ReduceMax"), (np.amax, "ReduceMax"), (np.min, "ReduceMin"), (np.amin, "ReduceMin"),
):  # fmt: skip
    implements(_function)(_reduction(_kind, _function))


@implements(np.any)
def _any(array: Any, axis: Any = None, out: Any = None, keepdims: Any = False, **_: Any) -> Any:
    array = lift(array)
    truths = array if array.dtype == bool else np.not_equal(array, 0)
    return np.max(np.where(truths, 1, 0), axis=axis, keepdims=keepdims is True) > 0


@implements(np.all)
def _all(array: Any, axis: Any = None, out: Any = None, keepdims: Any = False, **_: Any) -> Any:
    array = lift(array)
    truths = array if array.dtype == bool else np.not_equal(array, 0)
    return np.min(np.where(truths, 1, 0), axis=axis, keepdims=keepdims is True) > 0


@implements(np.count_nonzero)
def _count_nonzero(array: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return np.sum(np.not_equal(array, 0), axis=axis, keepdims=keepdims)


@implements(np.var)
def _var(array: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: float = 0, keepdims: Any = False,
         **more: Any) -> Any:  # fmt: skip
    array = lift(array)
    array = array if array.dtype.kind == "f" else astype(array, np.dtype(float))
    axes = _axes(array, axis)
    count = int(np.prod([array.shape[each] for each in axes]))
    difference = array - np.mean(array, axis=axis, keepdims=True)
    degrees = array.dtype.type(max(count - more.get("correction", ddof), 0))
    return np.sum(difference * difference, axis=axis, keepdims=keepdims is True) / degrees


@implements(np.std)
def _std(array: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: float = 0, keepdims: Any = False,
         **more: Any) -> Any:  # fmt: skip
    return np.sqrt(np.var(array, axis=axis, ddof=more.get("correction", ddof), keepdims=keepdims is True))


@implements(np.ptp)
def _ptp(array: Any, axis: Any = None, out: Any = None, keepdims: Any = False) -> Any:
    keep = keepdims is True
    return np.max(array, axis=axis, keepdims=keep) - np.min(array, axis=axis, keepdims=keep)


@implements(np.average)
def _average(array: Any, axis: Any = None, weights: Any = None, **_: Any) -> Any:
    if weights is None:
        return np.mean(array, axis=axis)
    weights = np.asarray(weights)
    if weights.ndim == 1 and lift(array).ndim == 2 and axis == 0:
        raise UntraceableError(OVER_ROWS)
    return np.sum(array * weights, axis=axis) / weights.sum()


def _place(kind: str, function: Any) -> Callable[..., Any]:
    def place(array: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
        array = lift(array)
        if axis is None:
            raise UntraceableError(OVER_ROWS)
        _axes(array, axis)
        if array.dtype.kind == "f":  # the first NaN is the greatest to NumPy
            array = np.where(np.isnan(array), np.inf if kind == "ArgMax" else -np.inf, array)
        wide = array if array.dtype.kind == "f" else astype(array, np.dtype(np.int64))
        example = function(array.example, axis=axis, keepdims=keepdims is True)
        return emit(kind, [wide], example, axis=int(axis), keepdims=int(keepdims is True))

    return place


implements(np.argmax)(_place("ArgMax", np.argmax))
implements(np.argmin)(_place("ArgMin", np.argmin))


@implements(np.cumsum)
def _cumsum(array: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    array = lift(array)
    axis = 0 if axis is None and array.ndim == 1 else axis
    if axis is None:
        raise UntraceableError(OVER_ROWS)
    _axes(array, axis)
    example = np.cumsum(array.example, axis=axis, dtype=dtype)
    return emit("CumSum", [astype(array, example.dtype), lift(np.array(axis, dtype=np.int64))], example)


@implements(np.cumprod)
def _cumprod(array: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    array = lift(array)
    if axis is None:
        raise UntraceableError(OVER_ROWS)
    _axes(array, axis)
    parts = [np.take(array, [0], axis=axis)]
    for place in range(1, array.shape[axis]):
        parts.append(parts[-1] * np.take(array, [place], axis=axis))
    return concatenate(parts, axis)


def _sorted(array: Traced, axis: int) -> tuple[Traced, Traced]:
    """Values in ascending order, and their places; a NaN comes last."""
    _axes(array, axis)
    wide = array if array.dtype.kind == "f" else astype(array, np.dtype(np.int64))
    keys = np.where(np.isnan(wide), np.inf, wide) if wide.dtype.kind == "f" else wide
    count = array.shape[axis]
    names = current().recording.nodes_of(
        "TopK", [keys.name, integers(count).name], 2, axis=axis, largest=0, sorted=1
    )
    places = Traced(names[1], np.argsort(keys.example, axis=axis, kind="stable"))
    if wide.dtype.kind != "f":
        return astype(Traced(names[0], np.sort(wide.example, axis=axis)), array.dtype), places
    missing = np.sum(np.isnan(wide), axis=axis, keepdims=True)
    shape = [1] * array.ndim
    shape[axis] = count
    last = np.greater_equal(np.arange(count).reshape(shape), count - missing)
    return np.where(last, np.nan, Traced(names[0], np.sort(keys.example, axis=axis))), places


@implements(np.sort)
def _sort(array: Any, axis: int = -1, **_: Any) -> Any:
    return _sorted(lift(array), axis % array.ndim)[0]


@implements(np.argsort)
def _argsort(array: Any, axis: int = -1, **_: Any) -> Any:
    return _sorted(lift(array), axis % array.ndim)[1]


@implements(np.median)
def _median(
    array: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: bool = False
) -> Any:
    array = lift(array)
    if axis is None:
        raise UntraceableError(OVER_ROWS)
    ordered = _sorted(array if array.dtype.kind == "f" else astype(array, np.dtype(float)), axis % array.ndim)[0]
    count = array.shape[axis]
    middle = np.mean(np.take(ordered, [(count - 1) // 2, count // 2], axis=axis), axis=axis, keepdims=keepdims)
    return np.where(np.any(np.isnan(ordered), axis=axis, keepdims=keepdims), np.nan, middle)


@implements(np.quantile)
def _quantile(array: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False,
              method: str = "linear", keepdims: bool = False, **_: Any) -> Any:  # fmt: skip
    array = lift(array)
    if axis is None or method != "linear" or np.ndim(q):
        raise UntraceableError(
            "numpy.quantile without an axis, of several shares, or by another method than linear"
        )
    ordered = _sorted(array if array.dtype.kind == "f" else astype(array, np.dtype(float)), axis % array.ndim)[0]
    place = float(q) * (array.shape[axis] - 1)
    below = int(np.floor(place))
    share = ordered.dtype.type(place - below)
    low = np.take(ordered, [below], axis=axis)
    high = np.take(ordered, [min(below + 1, array.shape[axis] - 1)], axis=axis)
    found = high - (high - low) * (1 - share) if share >= 0.5 else low + (high - low) * share
    found = np.where(np.any(np.isnan(ordered), axis=axis, keepdims=True), np.nan, found)
    return found if keepdims else np.squeeze(found, axis=axis)


@implements(np.percentile)
def _percentile(array: Any, q: Any, axis: Any = None, **more: Any) -> Any:
    return np.quantile(array, np.true_divide(q, 100), axis=axis, **more)


def _ignoring(function: Callable[..., Any], neutral: float) -> Callable[..., Any]:
    """A reduction that passes over NaN: it takes the neutral value for it."""

    def reduction(array: Any, axis: Any = None, **more: Any) -> Any:
        array = lift(array)
        if array.dtype.kind != "f":
            return function(array, axis=axis, **more)
        found = function(np.where(np.isnan(array), array.dtype.type(neutral), array), axis=axis, **more)
        if np.isfinite(neutral):
            return found
        keep = {"keepdims": True} if more.get("keepdims") else {}
        return np.where(np.all(np.isnan(array), axis=axis, **keep), np.nan, found)

    return reduction


implements(np.nansum)(_ignoring(np.sum, 0.0))
implements(np.nanprod)(_ignoring(np.prod, 1.0))
implements(np.nanmax)(_ignoring(np.max, -np.inf))
implements(np.nanmin)(_ignoring(np.min, np.inf))


@implements(np.nanmean)
def _nanmean(
    array: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False, **_: Any
) -> Any:
    array = lift(array)
    present = np.sum(np.logical_not(np.isnan(array)), axis=axis, keepdims=keepdims)
    return np.nansum(array, axis=axis, keepdims=keepdims) / astype(lift(present), array.dtype)


@implements(np.nanvar)
def _nanvar(array: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: int = 0, keepdims: bool = False,
            **_: Any) -> Any:  # fmt: skip
    array = lift(array)
    present = astype(lift(np.sum(np.logical_not(np.isnan(array)), axis=axis, keepdims=keepdims)), array.dtype)
    difference = array - np.nanmean(array, axis=axis, keepdims=True)
    found = np.nansum(difference * difference, axis=axis, keepdims=keepdims) / (present - ddof)
    return np.where(present > ddof, found, np.nan)


@implements(np.nanstd)
def _nanstd(array: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: int = 0, keepdims: bool = False,
            **_: Any) -> Any:  # fmt: skip
    return np.sqrt(np.nanvar(array, axis=axis, ddof=ddof, keepdims=keepdims))


@implements(np.nanmedian)
def _nanmedian(array: Any, axis: Any = None, keepdims: bool = False, **_: Any) -> Any:
    array = lift(array)
    if axis is None:
        raise UntraceableError(OVER_ROWS)
    axis = axis % array.ndim
    ordered = _sorted(array, axis)[0]
    present = np.sum(np.logical_not(np.isnan(array)), axis=axis, keepdims=True)
    shape = [1] * array.ndim
    shape[axis] = array.shape[axis]
    places = np.arange(array.shape[axis]).reshape(shape)
    middle = np.logical_or(np.equal(places, (present - 1) // 2), np.equal(places, present // 2))
    chosen = np.nansum(np.where(middle, ordered, array.dtype.type(0)), axis=axis, keepdims=keepdims)
    count = astype(lift(np.sum(middle, axis=axis, keepdims=keepdims)), array.dtype)
    none = np.all(np.isnan(array), axis=axis, keepdims=keepdims)
    return np.where(none, np.nan, chosen / count)


@implements(np.linalg.norm)
def _norm(array: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:  # noqa: A002 - NumPy's name
    array = lift(array)
    array = array if array.dtype.kind == "f" else astype(array, np.dtype(float))
    if not isinstance(axis, int):
        raise UntraceableError("numpy.linalg.norm without one axis")
    size = np.abs(array)
    if ord in (None, 2):
        return np.sqrt(np.sum(array * array, axis=axis, keepdims=keepdims))
    if ord == 1:
        return np.sum(size, axis=axis, keepdims=keepdims)
    if ord in (np.inf, -np.inf):
        return (np.max if ord > 0 else np.min)(size, axis=axis, keepdims=keepdims)
    return np.power(np.sum(np.power(size, ord), axis=axis, keepdims=keepdims), 1 / ord)
