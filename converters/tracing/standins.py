"""Functions of NumPy and pandas that no protocol leads to traced values: they are replaced while a trace runs.

`numpy.zeros` and `numpy.asarray` are given sizes or turn anything into an array, and pandas has no protocol at all.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from onnxtool.converters.tracing import indexing, reductions  # noqa: F401 - they fill the tables
from onnxtool.converters.tracing.arrays import Traced, UntraceableError, concatenate, is_rows, is_traced, lift
from onnxtool.converters.tracing.functions import filled, take


def _holds_traced(value: Any) -> bool:
    if is_traced(value) or type(value).__name__ in ("TracedSeries", "TracedFrame"):
        return True
    return isinstance(value, list | tuple) and any(map(_holds_traced, value))


def _counts_rows(shape: Any) -> bool:
    sizes = shape if isinstance(shape, tuple | list) else [shape]
    return any(isinstance(size, int | np.integer) and is_rows(int(size)) for size in sizes)


def _as_array(real: Any) -> Callable[..., Any]:
    def as_array(value: Any = None, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not _holds_traced(value):
            return real(value, dtype, *args, **kwargs)
        found = _array_of(value)
        found = found.copy() if real is np.array else found
        return found if dtype is None else found.astype(dtype)

    return as_array


def _array_of(value: Any) -> Traced:
    if is_traced(value):
        return value
    if hasattr(value, "to_numpy"):
        return value.to_numpy()
    stacked: Any = np.stack([_array_of(each) if _holds_traced(each) else lift(each) for each in value])
    return stacked


def _filled_with(real: Any, value: Any) -> Callable[..., Any]:
    def create(shape: Any, dtype: Any = float, *args: Any, **kwargs: Any) -> Any:
        if not _counts_rows(shape):
            return real(shape, dtype, *args, **kwargs)
        return filled(shape, value, dtype)

    return create


def _full(real: Any) -> Callable[..., Any]:
    def full(shape: Any, fill_value: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not _counts_rows(shape) or is_traced(fill_value):
            return real(shape, fill_value, dtype, *args, **kwargs)
        return filled(shape, fill_value, np.asarray(fill_value).dtype if dtype is None else dtype)

    return full


def _take(real: Any) -> Callable[..., Any]:
    def look_up(a: Any, indices: Any, axis: Any = None, out: Any = None, mode: str = "raise") -> Any:
        traced = _holds_traced(a) or _holds_traced(indices)
        return take(a, indices, axis, mode) if traced else real(a, indices, axis, out, mode)

    return look_up


class _Columns:
    """`numpy.c_`."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        return np.column_stack([_array_of(part) for part in parts]) if _holds_traced(parts) else self.real[key]


def numpy_stand_ins() -> dict[str, Any]:
    """What stands for some of NumPy's functions."""
    return {
        **{name: _as_array(getattr(np, name)) for name in ("array", "asarray", "asanyarray", "ascontiguousarray")},
        "zeros": _filled_with(np.zeros, 0), "ones": _filled_with(np.ones, 1), "empty": _filled_with(np.empty, 0),
        "full": _full(np.full), "take": _take(np.take), "c_": _Columns(np.c_),
    }  # fmt: skip


def pandas_stand_ins() -> dict[str, Any]:  # noqa: PLR0915 - a function for each of pandas'
    """What stands for some of pandas' functions and classes."""
    import pandas as pd

    from onnxtool.converters.tracing.frames import TracedFrame, TracedSeries, column_of, is_series, missing

    def frame(data: Any = None, index: Any = None, columns: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(data, Mapping) and any(map(_holds_traced, data.values())):
            return TracedFrame({name: column_of(value) for name, value in data.items()})
        if data is None and index is not None and _counts_rows(len(index)):
            return TracedFrame(dict.fromkeys(columns or (), np.nan))
        if not _holds_traced(data):
            return real_frame(data, index, columns, *args, **kwargs)
        if type(data) is TracedFrame:
            return data if columns is None else data[list(columns)]
        if type(data) is TracedSeries:
            return data.to_frame()
        matrix = _array_of(data)
        names = list(columns) if columns is not None else list(range(matrix.shape[1]))
        return TracedFrame({name: matrix[:, place] for place, name in enumerate(names)})

    def series(data: Any = None, index: Any = None, dtype: Any = None, name: Any = None, **kwargs: Any) -> Any:
        if not _holds_traced(data):
            rows = index is not None and np.isscalar(data) and _counts_rows(len(index))
            return TracedSeries(column_of(data), name) if rows else real_series(data, index, dtype, name, **kwargs)
        found = data if is_series(data) else TracedSeries(column_of(data), name)
        found = found.rename(name) if name is not None else found
        return found if dtype is None else found.astype(dtype)

    def concat(objects: Any, *args: Any, axis: Any = 0, **kwargs: Any) -> Any:
        parts = list(objects.values()) if isinstance(objects, Mapping) else list(objects)
        if not _holds_traced(parts):
            return real_concat(objects, *args, axis=axis, **kwargs)
        if axis not in (1, "columns"):
            raise UntraceableError("rows put under rows: a model gives one row for each that it gets")
        columns: dict[Any, Any] = {}
        for part in parts:
            columns |= (part.to_frame() if is_series(part) else part).columns_
        return TracedFrame(columns)

    def elementwise(real: Any, negated: bool) -> Callable[..., Any]:
        def isna(value: Any) -> Any:
            if not _holds_traced(value):
                return real(value)
            if is_traced(value):
                return np.logical_not(missing(value)) if negated else missing(value)
            return value.notna() if negated else value.isna()

        return isna

    def to_numeric(value: Any, *args: Any, **kwargs: Any) -> Any:
        if not _holds_traced(value):
            return real_numeric(value, *args, **kwargs)
        if value.dtype == object:
            raise UntraceableError("text that becomes numbers")
        return value

    def cut(
        x: Any, bins: Any, right: bool = True, labels: Any = None, include_lowest: bool = False, **more: Any
    ) -> Any:
        """The bin of each value, as its number or its label; NaN outside of all."""
        if not _holds_traced(x):
            return real_cut(x, bins, right=right, labels=labels, include_lowest=include_lowest, **more)
        if isinstance(bins, int) or labels is None or more:
            raise UntraceableError("pandas.cut into a number of bins of the rows' own range, or without labels")
        edges = np.asarray(bins, dtype=float)
        values = x.array_ if is_series(x) else lift(x)
        place = np.searchsorted(edges, values, side="left" if right else "right") - 1
        if include_lowest and right:
            place = np.where(np.equal(values, edges[0]), 0, place)
        outside = np.logical_or(np.logical_or(place < 0, place > len(edges) - 2), np.isnan(values))
        if labels is False:
            found = np.where(outside, np.nan, place)
        else:
            texts = any(isinstance(each, str) for each in labels)
            table = np.array(list(labels), dtype=object if texts else None)
            found = take(table, np.clip(place, 0, len(table) - 1))
            found = np.where(outside, "" if texts else np.nan, found)
        return TracedSeries(column_of(found), x.name) if is_series(x) else found

    real_frame, real_series, real_concat = pd.DataFrame, pd.Series, pd.concat
    real_numeric, real_cut = pd.to_numeric, pd.cut

    def standing_for(real: type, make: Callable[..., Any]) -> type:
        """A class that makes what a function makes, and has all that the real one has."""

        class Meta(type(real)):  # type: ignore[misc]
            def __call__(cls, *args: Any, **kwargs: Any) -> Any:
                return make(*args, **kwargs)

            def __instancecheck__(cls, instance: Any) -> bool:
                return isinstance(instance, real)

        return Meta(real.__name__, (real,), {})

    return {
        "DataFrame": standing_for(real_frame, frame),
        "Series": standing_for(real_series, series),
        "concat": concat,
        "isna": elementwise(pd.isna, False),
        "isnull": elementwise(pd.isnull, False),
        "notna": elementwise(pd.notna, True),
        "notnull": elementwise(pd.notnull, True),
        "to_numeric": to_numeric,
        "cut": cut,
    }


@contextlib.contextmanager
def replaced(modules: Sequence[ModuleType]) -> Iterator[None]:
    """Replace the functions in NumPy and pandas, and where the given modules have them under names of their own."""
    import pandas as pd

    with contextlib.ExitStack() as undo:
        swaps: dict[int, Any] = {}
        for owner, stand_ins in ((np, numpy_stand_ins()), (pd, pandas_stand_ins())):
            for name, stand_in in stand_ins.items():
                real = getattr(owner, name)
                swaps[id(real)] = stand_in
                _swap(undo, owner, name, stand_in)
        for module in modules:
            for name, value in list(vars(module).items()):
                if id(value) in swaps and module not in (np, pd):
                    _swap(undo, module, name, swaps[id(value)])
        yield


def _swap(undo: contextlib.ExitStack, owner: Any, name: str, value: Any) -> None:
    undo.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


def module_of(value: Any) -> ModuleType | None:
    """The module in which a class or a function was written."""
    return sys.modules.get(getattr(value, "__module__", "") or "")


__all__ = ["concatenate", "module_of", "replaced"]
