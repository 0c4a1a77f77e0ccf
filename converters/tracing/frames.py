"""Data frames and series that write down what is done to them; they pass for pandas' own.

A frame is its columns, a traced vector each. There is no index: rows stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy
from numpy.lib.mixins import NDArrayOperatorsMixin

from onnxtool.converters.tracing.arrays import (
    Traced,
    UntraceableError,
    astype,
    broadcast,
    concatenate,
    current,
    is_rows,
    is_traced,
    lift,
)
from onnxtool.converters.tracing.functions import take
from onnxtool.converters.tracing.text import changed_case, matches, places_among, text_among
from onnxtool.errors import require

ROWS_CHOSEN = (
    "a choice of some rows of a frame: a model gives one row for each that it gets. "
    "Use where or mask to change some"
)
OVER_ROWS = (
    "a statistic over all rows that come together, which another batch would change. "
    "Compute it in fit, and keep it in an attribute"
)

np: Any = numpy  # its annotations do not know traced arrays
REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": np.nansum, "mean": np.nanmean, "max": np.nanmax, "min": np.nanmin, "std": np.nanstd, "var": np.nanvar,
    "median": np.nanmedian, "prod": np.nanprod,
}  # fmt: skip
NAMED = {
    "add": np.add, "sub": np.subtract, "subtract": np.subtract, "mul": np.multiply, "multiply": np.multiply,
    "div": np.divide, "divide": np.divide, "truediv": np.divide, "floordiv": np.floor_divide, "mod": np.remainder,
    "pow": np.power, "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal,
}  # fmt: skip
REVERSED = {
    f"r{name}": function for name, function in NAMED.items() if name in ("add", "sub", "mul", "div", "pow")
}


def _pandas() -> Any:
    return require("pandas", "data")


def is_series(value: Any) -> bool:
    """Whether a value is a traced series."""
    return type(value) is TracedSeries


def is_frame(value: Any) -> bool:
    """Whether a value is a traced frame."""
    return type(value) is TracedFrame


def column_of(value: Any) -> Traced:
    """A value as a column: a scalar stands for each row."""
    if is_series(value):
        value = value.array_
    if isinstance(value, _pandas().Series):
        value = value.to_numpy()
    if isinstance(value, list | tuple):
        value = np.asarray(value)
    array = lift(value)
    if array.ndim == 2 and array.shape[1] == 1:
        array = np.squeeze(array, axis=1)
    if array.ndim > 1:
        raise UntraceableError("a matrix as one column")
    return broadcast(array, (current().rows,))


class _Table(NDArrayOperatorsMixin):
    """What frames and series have in common."""

    def _each(self, function: Callable[[Traced], Any]) -> Any:
        raise NotImplementedError

    def _values(self, *_: Any, **__: Any) -> Any:
        raise UntraceableError("code that needs the values of the rows themselves")

    __array__ = __float__ = __int__ = tolist = to_list = to_dict = item = unique = nunique = value_counts = _values
    describe = quantile = rank = cumsum = cumprod = diff = shift = rolling = expanding = ewm = groupby = _values

    def __bool__(self) -> bool:
        """No: see `Traced`.

        Raises:
            UntraceableError: always.
        """
        raise UntraceableError("a branch that depends on the values of the rows. Use where or mask")

    def __len__(self) -> int:
        """The example's number of rows."""
        return current().rows

    @property
    def index(self) -> Any:
        """An index of the example's rows."""
        return _pandas().RangeIndex(current().rows)

    @property
    def empty(self) -> bool:
        """Whether there are no rows, which is for the caller of a model."""
        return False

    def copy(self, *_: Any, **__: Any) -> Any:
        """A copy."""
        return self._each(lambda array: array.copy())

    def reset_index(self, *_: Any, drop: bool = False, **__: Any) -> Any:
        """The same: there is no index."""
        if not drop:
            raise UntraceableError("an index that becomes a column")
        return self.copy()

    def infer_objects(self, *_: Any, **__: Any) -> Any:
        """The same: dtypes are known."""
        return self

    def isna(self) -> Any:
        """Where a number is NaN, or text is missing."""
        return self._each(missing)

    isnull = isna

    def notna(self) -> Any:
        """Where it is not."""
        return self._each(lambda array: np.logical_not(missing(array)))

    notnull = notna

    def abs(self) -> Any:
        """Absolute values."""
        return self._each(np.abs)

    def round(self, decimals: int = 0) -> Any:
        """Rounded to so many decimals."""
        return self._each(lambda array: np.round(array, decimals))

    def pipe(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """What a function makes of it."""
        return function(self, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Arithmetic by name, as in `a.div(b)`."""
        function = NAMED.get(name) or REVERSED.get(name)
        if function is not None:
            turned = name in REVERSED

            def named(other: Any, axis: Any = None, level: Any = None, fill_value: Any = None) -> Any:
                both = (lambda a, b: function(b, a)) if turned else function
                return _arithmetic(both, self, other, axis, fill_value)

            return named
        kind = "DataFrame" if is_frame(self) else "Series"
        if not name.startswith("__") and hasattr(getattr(_pandas(), kind), name):
            raise UntraceableError(f"pandas.{kind}.{name}, which has no translation")
        raise AttributeError(f"{kind!r} object has no attribute {name!r}")

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """NumPy's array functions on the values, elementwise ones column by column."""
        from onnxtool.converters.tracing.arrays import call_function

        if function in ELEMENTWISE and is_frame(self) and args and args[0] is self:
            return self._each(lambda array: function(array, *args[1:], **kwargs))
        found = call_function(function, _plain(args), _plain(kwargs))
        if function in (*ELEMENTWISE, np.where) and is_series(self) and is_traced(found) and found.ndim == 1:
            return TracedSeries(found, self.name) if function is not np.where else found
        return found


ELEMENTWISE = (np.clip, np.round, np.around, np.nan_to_num, np.zeros_like, np.ones_like, np.full_like, np.copy)


def _plain(value: Any) -> Any:
    """Arrays in place of series and frames, in containers too."""
    if is_series(value):
        return value.array_
    if is_frame(value):
        return value.to_numpy()
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value


def _arithmetic(function: Callable[[Any, Any], Any], table: Any, other: Any, axis: Any, fill: Any) -> Any:
    if is_frame(table) and is_series(other) and axis in (0, "index", "rows"):
        return table._each(lambda array: function(array, other.array_))
    if fill is not None:
        table = table.fillna(fill)
        other = other.fillna(fill) if is_series(other) or is_frame(other) else other
    return function(table, other)


def missing(array: Traced) -> Any:
    """Where a value is missing: NaN, and for text the empty text, which stands for it in ONNX."""
    if array.dtype == object:
        return text_among(array, [""])
    return np.isnan(array) if array.dtype.kind == "f" else np.zeros_like(array, dtype=bool)


def filled(array: Traced, value: Any) -> Traced:
    """With another value where one is missing."""
    if is_series(value):
        value = value.array_
    if array.dtype.kind not in "fO":
        return array
    return np.where(missing(array), value, array)


class TracedSeries(_Table):
    """A column.

    Attributes:
        array_: Its values.
        name: Its name.
    """

    def __init__(self, array: Traced, name: Any = None) -> None:
        self.array_ = array
        self.name = name

    @property
    def __class__(self) -> Any:
        """What `isinstance` takes it for."""
        return _pandas().Series

    @__class__.setter
    def __class__(self, kind: Any) -> None:
        raise UntraceableError("a column's class is changed")

    def _each(self, function: Callable[[Traced], Any]) -> Any:
        return TracedSeries(function(self.array_), self.name)

    @property
    def values(self) -> Traced:
        """Its values."""
        return self.array_.copy()

    array = values

    def to_numpy(self, dtype: Any = None, *_: Any, **__: Any) -> Traced:
        """Its values."""
        return self.array_.copy() if dtype is None else astype(self.array_, np.dtype(dtype))

    @property
    def dtype(self) -> Any:
        """Its dtype."""
        return self.array_.dtype

    dtypes = dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.array_.shape

    @property
    def ndim(self) -> int:
        """One."""
        return 1

    @property
    def size(self) -> int:
        """Rows."""
        return current().rows

    @property
    def str(self) -> Text:
        """Its methods of text."""
        return Text(self)

    @property
    def dt(self) -> Any:
        """Dates: ONNX has none.

        Raises:
            UntraceableError: always.
        """
        raise UntraceableError("dates, for which ONNX has no dtype")

    def __iter__(self) -> Iterator[Any]:
        """No.

        Raises:
            UntraceableError: always.
        """
        raise UntraceableError("a loop over the rows. Write it for the whole column at once")

    def __getitem__(self, key: Any) -> Any:
        """All of it, and nothing less."""
        if isinstance(key, slice) and key == slice(None):
            return self
        raise UntraceableError(ROWS_CHOSEN)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Replace values where a condition holds."""
        self.array_ = _assigned(self.array_, key, value)

    @property
    def loc(self) -> Any:
        """Rows where a condition holds, to be replaced."""
        return self

    def __array_ufunc__(self, ufunc: Any, method: Any, *inputs: Any, **kwargs: Any) -> Any:
        """A universal function of columns."""
        if any(is_frame(value) for value in inputs):
            return NotImplemented
        arrays = [_operand(value) for value in inputs]
        kwargs = {name: _plain(value) for name, value in kwargs.items()}
        found = getattr(ufunc, method)(*arrays, **kwargs)
        names = {value.name for value in inputs if is_series(value)}
        name = names.pop() if len(names) == 1 else None
        if isinstance(found, tuple):
            return tuple(TracedSeries(each, name) for each in found)
        return TracedSeries(found, name) if is_traced(found) and found.ndim == 1 else found

    def astype(self, dtype: Any, *_: Any, **__: Any) -> TracedSeries:
        """In another dtype."""
        return TracedSeries(_cast(self.array_, dtype), self.name)

    def fillna(self, value: Any = None, *_: Any, **more: Any) -> TracedSeries:
        """With another value for what is missing."""
        if value is None:
            raise UntraceableError("fillna from other rows")
        found = filled(self.array_, value)
        if more.get("inplace"):
            self.array_ = found
        return TracedSeries(found, self.name)

    def clip(self, lower: Any = None, upper: Any = None, *_: Any, **__: Any) -> TracedSeries:
        """Within limits; NaN stays."""
        return TracedSeries(np.clip(self.array_, _plain(lower), _plain(upper)), self.name)

    def where(self, condition: Any, other: Any = np.nan, *_: Any, **__: Any) -> TracedSeries:
        """Its values where a condition holds, else another."""
        return TracedSeries(np.where(_plain(condition), self.array_, _fitting(other, self.array_)), self.name)

    def mask(self, condition: Any, other: Any = np.nan, *_: Any, **__: Any) -> TracedSeries:
        """Another value where a condition holds, else its own."""
        return self.where(np.logical_not(_plain(condition)), other)

    def between(self, left: Any, right: Any, inclusive: Any = "both") -> Any:
        """Whether it lies between two values."""
        low = self >= left if inclusive in ("both", "left") else self > left
        high = self <= right if inclusive in ("both", "right") else self < right
        return low & high

    def isin(self, values: Any) -> TracedSeries:
        """Whether it is one of some values."""
        return TracedSeries(np.isin(self.array_, list(values)), self.name)

    def combine_first(self, other: Any) -> TracedSeries:
        """With another column's values for what is missing."""
        return self.fillna(other)

    def map(self, mapping: Any, na_action: Any = None) -> TracedSeries:
        """What a mapping has for each value, NaN where it has nothing; or what a function makes of it."""
        if isinstance(mapping, _pandas().Series):
            mapping = mapping.to_dict()
        if not isinstance(mapping, Mapping):
            return self.apply(mapping)
        default = mapping[object()] if hasattr(type(mapping), "__missing__") else None
        return TracedSeries(looked_up(self.array_, mapping, default), self.name)

    def replace(self, to_replace: Any = None, value: Any = None, *_: Any, **__: Any) -> TracedSeries:
        """Some values by others."""
        pairs = to_replace if isinstance(to_replace, Mapping) else None
        if pairs is None:
            old = to_replace if isinstance(to_replace, list | tuple) else [to_replace]
            new = value if isinstance(value, list | tuple) else [value] * len(old)
            pairs = dict(zip(old, new, strict=True))
        found = self.array_
        same: Any
        for old, new in pairs.items():
            same = missing(self.array_) if _pandas().isna(old) else np.equal(self.array_, old)
            found = np.where(same, _fitting(new, found), found)
        return TracedSeries(found, self.name)

    def apply(self, function: Any, *_: Any, args: tuple[Any, ...] = (), **kwargs: Any) -> TracedSeries:
        """What a function makes of each value, if it can be given all at once."""
        found = getattr(np, function)(self) if isinstance(function, str) else function(self, *args, **kwargs)
        return found if is_series(found) else TracedSeries(column_of(found), self.name)

    def rename(self, name: Any = None, **_: Any) -> TracedSeries:
        """Under another name."""
        return TracedSeries(self.array_, name)

    def to_frame(self, name: Any = None) -> TracedFrame:
        """As the one column of a frame."""
        return TracedFrame({name if name is not None else self.name: self.array_})

    def reindex(self, *_: Any, **__: Any) -> Any:
        """No.

        Raises:
            UntraceableError: always.
        """
        raise UntraceableError(ROWS_CHOSEN)

    def _over_rows(self, *_: Any, **__: Any) -> Any:
        if current().checks_pass:
            return False
        raise UntraceableError(OVER_ROWS)

    sum = mean = max = min = std = var = median = prod = any = all = mode = sort_values = _over_rows


class TracedFrame(_Table):
    """A frame.

    Attributes:
        columns_: Its columns by name, in order.
    """

    columns_: dict[Any, Traced]

    def __init__(self, columns: Mapping[Any, Any]) -> None:
        self.__dict__["columns_"] = {name: column_of(value) for name, value in columns.items()}

    @property
    def __class__(self) -> Any:
        """What `isinstance` takes it for."""
        return _pandas().DataFrame

    @__class__.setter
    def __class__(self, kind: Any) -> None:
        raise UntraceableError("a frame's class is changed")

    def _each(self, function: Callable[[Traced], Any]) -> Any:
        return TracedFrame({name: function(array) for name, array in self.columns_.items()})

    @property
    def columns(self) -> Any:
        """Names of its columns."""
        return _pandas().Index(list(self.columns_))

    def __setattr__(self, name: str, value: Any) -> None:
        """Set the names of the columns, or a column."""
        if name == "columns":
            self.__dict__["columns_"] = dict(zip(value, self.columns_.values(), strict=True))
        elif name in self.columns_:
            self[name] = value
        else:
            self.__dict__[name] = value

    def __getattr__(self, name: str) -> Any:
        """A column by its name, as in `frame.age`."""
        if name in self.__dict__["columns_"]:
            return self[name]
        return super().__getattr__(name)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return current().rows, len(self.columns_)

    @property
    def ndim(self) -> int:
        """Two."""
        return 2

    @property
    def dtypes(self) -> Any:
        """Dtypes of the columns."""
        return _pandas().Series({name: array.dtype for name, array in self.columns_.items()}, dtype=object)

    @property
    def values(self) -> Traced:
        """A matrix of all columns."""
        return self.to_numpy()

    def to_numpy(self, dtype: Any = None, *_: Any, **__: Any) -> Traced:
        """A matrix of all columns."""
        if not self.columns_:
            raise UntraceableError("a frame without columns")
        found = concatenate([array[:, None] for array in self.columns_.values()], 1)
        return found if dtype is None else astype(found, np.dtype(dtype))

    def __getitem__(self, key: Any) -> Any:
        """One column, or a frame of several."""
        if isinstance(key, _pandas().Index | np.ndarray) and not is_traced(key):
            key = list(np.asarray(self.columns)[key]) if np.asarray(key).dtype == bool else list(key)
        if isinstance(key, list):
            return TracedFrame({name: self._column(name) for name in key})
        if is_series(key) or is_traced(key) or isinstance(key, slice):
            raise UntraceableError(ROWS_CHOSEN)
        return TracedSeries(self._column(key), key)

    def _column(self, name: Any) -> Traced:
        if name not in self.columns_:
            raise KeyError(name)
        return self.columns_[name]

    def get(self, name: Any, default: Any = None) -> Any:
        """A column, or something else where there is none of the name."""
        return self[name] if name in self.columns_ else default

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set one column or several."""
        if isinstance(key, _pandas().Index | np.ndarray) and not is_traced(key):
            key = list(key)
        if isinstance(key, list):
            for name, column in zip(key, _several(value, len(key)), strict=True):
                self.columns_[name] = column
        elif is_frame(key):
            for name, condition in key.columns_.items():
                self.columns_[name] = _assigned(self.columns_[name], condition, value)
        else:
            self.columns_[key] = column_of(value)

    def __delitem__(self, name: Any) -> None:
        """Leave a column out."""
        del self.columns_[name]

    def __contains__(self, name: Any) -> bool:
        """Whether there is a column of a name."""
        return name in self.columns_

    def __iter__(self) -> Iterator[Any]:
        """Names of the columns."""
        return iter(list(self.columns_))

    keys = __iter__

    def items(self) -> Iterator[tuple[Any, TracedSeries]]:
        """Names and columns."""
        return ((name, self[name]) for name in list(self.columns_))

    def __array_ufunc__(self, ufunc: Any, method: Any, *inputs: Any, **kwargs: Any) -> Any:
        """A universal function, column by column."""
        frames = [value for value in inputs if is_frame(value)]
        names = list(frames[0].columns_)
        if any(list(frame.columns_) != names for frame in frames):
            raise UntraceableError("frames of different columns in one expression")
        given = [_by_column(value, names) for value in inputs]
        kwargs = {name: value for name, value in kwargs.items() if name != "out"}
        found = {
            name: getattr(ufunc, method)(*(each[place] for each in given), **kwargs)
            for place, name in enumerate(names)
        }
        return TracedFrame(found)

    @property
    def T(self) -> Any:  # noqa: N802 - pandas' name
        """Its transpose, as a matrix."""
        return self.to_numpy().T

    @property
    def loc(self) -> _Located:
        """Parts by the names of columns and by a condition on rows."""
        return _Located(self, by_name=True)

    @property
    def iloc(self) -> _Located:
        """Parts by the places of columns."""
        return _Located(self, by_name=False)

    def assign(self, **columns: Any) -> TracedFrame:
        """With more columns, or others."""
        found = self.copy()
        for name, value in columns.items():
            found[name] = value(found) if callable(value) and not is_series(value) else value
        return found

    def drop(self, labels: Any = None, axis: Any = 0, columns: Any = None, **more: Any) -> Any:
        """Without some columns."""
        if columns is None and axis not in (1, "columns"):
            raise UntraceableError(ROWS_CHOSEN)
        gone = columns if columns is not None else labels
        gone = [gone] if isinstance(gone, str | int) else list(gone)
        if more.get("errors") != "ignore" and (unknown := [name for name in gone if name not in self.columns_]):
            raise KeyError(f"{unknown} not found in axis")
        kept = {name: array for name, array in self.columns_.items() if name not in gone}
        if more.get("inplace"):
            self.__dict__["columns_"] = kept
            return None
        return TracedFrame(kept)

    def pop(self, name: Any) -> TracedSeries:
        """Take a column out."""
        return TracedSeries(self.columns_.pop(name), name)

    def insert(self, place: int, name: Any, value: Any, *_: Any) -> None:
        """Put a column in at a place."""
        pairs = list(self.columns_.items())
        pairs.insert(place, (name, column_of(value)))
        self.__dict__["columns_"] = dict(pairs)

    def rename(self, mapper: Any = None, columns: Any = None, axis: Any = None, **_: Any) -> TracedFrame:
        """With other names."""
        names = columns if columns is not None else mapper
        new: Any = (lambda name: names.get(name, name)) if isinstance(names, Mapping) else names
        return TracedFrame({new(name): array for name, array in self.columns_.items()})

    def add_prefix(self, prefix: str) -> TracedFrame:
        """With names that begin so."""
        return self.rename(lambda name: f"{prefix}{name}")

    def add_suffix(self, suffix: str) -> TracedFrame:
        """With names that end so."""
        return self.rename(lambda name: f"{name}{suffix}")

    def reindex(self, columns: Any = None, **more: Any) -> Any:
        """With its columns in another order."""
        if columns is None or more:
            raise UntraceableError(ROWS_CHOSEN)
        return self[list(columns)]

    def filter(self, items: Any = None, like: Any = None, regex: Any = None, axis: Any = None) -> Any:
        """The columns whose names fit."""
        import re

        fits: Any = (
            (lambda name: name in items) if items is not None
            else (lambda name: like in name) if like is not None
            else lambda name: re.search(regex, name) is not None
        )  # fmt: skip
        return self[[name for name in self.columns_ if fits(name)]]

    def select_dtypes(self, include: Any = None, exclude: Any = None) -> Any:
        """The columns of some dtypes."""
        empty = _pandas().DataFrame(
            {name: _pandas().Series(array.example[:1]) for name, array in self.columns_.items()}
        )
        return self[list(empty.select_dtypes(include, exclude).columns)]

    def astype(self, dtype: Any, *_: Any, **__: Any) -> Any:
        """In other dtypes."""
        if isinstance(dtype, Mapping):
            return TracedFrame(
                {n: _cast(array, dtype[n]) if n in dtype else array for n, array in self.columns_.items()}
            )
        return self._each(lambda array: _cast(array, dtype))

    def fillna(self, value: Any = None, *_: Any, **more: Any) -> Any:
        """With another value for what is missing."""
        if value is None:
            raise UntraceableError("fillna from other rows")
        if isinstance(value, _pandas().Series):
            value = value.to_dict()
        found = {
            name: filled(array, value[name]) if isinstance(value, Mapping) and name in value
            else array if isinstance(value, Mapping) else filled(array, value)
            for name, array in self.columns_.items()
        }  # fmt: skip
        if more.get("inplace"):
            self.__dict__["columns_"] = found
            return None
        return TracedFrame(found)

    def clip(self, lower: Any = None, upper: Any = None, axis: Any = None, **_: Any) -> Any:
        """Within limits, of all columns or of each."""
        names = list(self.columns_)
        low = _by_column(lower, names) if lower is not None else [None] * len(names)
        high = _by_column(upper, names) if upper is not None else [None] * len(names)
        return TracedFrame(
            {name: np.clip(self.columns_[name], low[place], high[place]) for place, name in enumerate(names)}
        )

    def where(self, condition: Any, other: Any = np.nan, *_: Any, **__: Any) -> Any:
        """Its values where a condition holds, else others."""
        names = list(self.columns_)
        conditions, others = _by_column(condition, names), _by_column(other, names)
        return TracedFrame(
            {
                name: np.where(
                    conditions[place], self.columns_[name], _fitting(others[place], self.columns_[name])
                )
                for place, name in enumerate(names)
            }
        )

    def mask(self, condition: Any, other: Any = np.nan, *_: Any, **__: Any) -> Any:
        """Other values where a condition holds, else its own."""
        return self.where(np.logical_not(condition), other)

    def isin(self, values: Any) -> Any:
        """Whether each value is one of some."""
        chosen = values if isinstance(values, Mapping) else dict.fromkeys(self.columns_, values)
        return TracedFrame(
            {name: np.isin(array, list(chosen.get(name, ()))) for name, array in self.columns_.items()}
        )

    def replace(self, to_replace: Any = None, value: Any = None, *_: Any, **__: Any) -> Any:
        """Some values by others."""
        nested = isinstance(to_replace, Mapping) and any(isinstance(each, Mapping) for each in to_replace.values())
        return TracedFrame(
            {
                name: self[name].replace(to_replace.get(name, {}) if nested else to_replace, value).array_
                for name in self.columns_
            }
        )

    def apply(self, function: Any, axis: Any = 0, *_: Any, args: tuple[Any, ...] = (), **kwargs: Any) -> Any:
        """What a function makes of each column, or of a row: of all rows at once."""
        kwargs.pop("raw", None)
        if axis in (1, "columns"):
            found = function(_Row(self.columns_), *args, **kwargs)
            return TracedSeries(column_of(found))
        if isinstance(function, str):
            return getattr(self, function)(*args, **kwargs)
        made = {name: function(self[name], *args, **kwargs) for name in self.columns_}
        return TracedFrame(made)

    def applymap(self, function: Any, *_: Any, **__: Any) -> Any:
        """What a function makes of each value, if it can be given a column at once."""
        return TracedFrame({name: function(self[name]) for name in self.columns_})

    map = applymap

    def join(self, other: Any, *_: Any, **__: Any) -> TracedFrame:
        """With another frame's columns after its own."""
        more = other.to_frame() if is_series(other) else other
        return TracedFrame({**self.columns_, **more.columns_})

    def eval(self, expression: str, **_: Any) -> Any:
        """An expression of the columns, `name = ` before it or not."""
        name, equals, body = expression.partition("=")
        assigns = bool(equals) and name.strip().isidentifier() and not body.startswith("=")
        columns = {str(column): self[column] for column in self.columns_}
        scope = {
            "__builtins__": {},
            **{n: getattr(np, n) for n in ("sqrt", "log", "exp", "log1p", "abs", "sin", "cos")},
        }
        found = eval((body if assigns else expression).strip(), scope, columns)  # noqa: S307 - the user's own code
        return self.assign(**{name.strip(): found}) if assigns else found

    def _reduced(self, name: str, axis: Any, skipna: bool, **more: Any) -> Any:
        if axis not in (1, "columns"):
            if current().checks_pass:
                return _pandas().Series(0.0, index=list(self.columns_))
            raise UntraceableError(OVER_ROWS)
        matrix = self.to_numpy()
        matrix = astype(matrix, np.dtype(float)) if name in ("mean", "std", "var", "median") else matrix
        if not skipna or matrix.dtype.kind != "f":
            more = {key: value for key, value in more.items() if key == "ddof"}
            return TracedSeries(getattr(np, name)(matrix, axis=1, **more))
        return TracedSeries(REDUCTIONS[name](matrix, axis=1, **more))

    def any(self, axis: Any = 0, **_: Any) -> Any:
        """Whether any of a row's values holds."""
        return self._over_row(np.any, axis)

    def all(self, axis: Any = 0, **_: Any) -> Any:
        """Whether all of a row's values hold."""
        return self._over_row(np.all, axis)

    def count(self, axis: Any = 0, **_: Any) -> Any:
        """How many of a row's values are there."""
        return self.notna()._over_row(np.sum, axis)

    def agg(self, func: Any = None, axis: Any = 0, **_: Any) -> Any:
        """One statistic of each row, or a frame of several."""
        if isinstance(func, str):
            return getattr(self, func)(axis=axis)
        if callable(func):
            return self.apply(func, axis=axis)
        return TracedFrame(
            {name if isinstance(name, str) else name.__name__: self.agg(name, axis) for name in func}
        )

    aggregate = agg

    def _over_row(self, function: Any, axis: Any) -> Any:
        if axis not in (1, "columns"):
            if current().checks_pass:
                return _pandas().Series(False, index=list(self.columns_))
            raise UntraceableError(OVER_ROWS)
        return TracedSeries(function(self.to_numpy(), axis=1))


def _frame_reduction(name: str) -> Callable[..., Any]:
    def reduction(
        self: TracedFrame, axis: Any = 0, skipna: bool = True, numeric_only: bool = False, **more: Any
    ) -> Any:
        table = self.select_dtypes("number") if numeric_only else self
        extra = {"ddof": more.get("ddof", 1)} if name in ("std", "var") else {}
        return table._reduced(name, axis, skipna, **extra)

    reduction.__name__, reduction.__doc__ = name, f"The {name} of each row."
    return reduction


for _name in REDUCTIONS:
    setattr(TracedFrame, _name, _frame_reduction(_name))


class _Row:
    """A row of `apply(..., axis=1)`: each value stands for a whole column."""

    def __init__(self, columns: Mapping[Any, Traced]) -> None:
        self.__dict__["columns_"] = columns

    def __getitem__(self, name: Any) -> Any:
        return TracedSeries(self.columns_[name], name)

    def __getattr__(self, name: str) -> Any:
        if name in self.columns_:
            return self[name]
        if name in REDUCTIONS:
            return lambda **more: getattr(TracedFrame(self.columns_), name)(axis=1, **more)
        raise UntraceableError(f"a row's {name}")


class _Located:
    """`loc` and `iloc`: all rows or those where a condition holds, and some columns."""

    def __init__(self, frame: TracedFrame, by_name: bool) -> None:
        self.frame, self.by_name = frame, by_name

    def _names(self, key: Any) -> Any:
        names = list(self.frame.columns_)
        if not self.by_name:
            chosen = np.asarray(names, dtype=object)[key]
            return chosen if isinstance(key, int) else list(chosen)
        if isinstance(key, slice):
            start = names.index(key.start) if key.start is not None else 0
            stop = names.index(key.stop) + 1 if key.stop is not None else len(names)
            return names[start:stop]
        if isinstance(key, str | int):
            return key
        chosen = np.asarray(key)
        return (
            [name for name, kept in zip(names, chosen, strict=True) if kept] if chosen.dtype == bool else list(key)
        )

    def __getitem__(self, key: Any) -> Any:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        if not (isinstance(rows, slice) and rows == slice(None)):
            raise UntraceableError(ROWS_CHOSEN)
        return self.frame[self._names(columns)]

    def __setitem__(self, key: Any, value: Any) -> None:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        if self.by_name and isinstance(columns, str) and columns not in self.frame.columns_:
            self.frame[columns] = np.nan
        chosen = self._names(columns)
        names = [chosen] if isinstance(chosen, str | int) else list(chosen)
        for name, new in zip(names, _several(value, len(names)), strict=True):
            whole = isinstance(rows, slice) and rows == slice(None)
            old = self.frame.columns_[name]
            self.frame.columns_[name] = new if whole else _assigned(old, rows, TracedSeries(new))


class Text:
    """A series' methods of text: those for which ONNX has operators."""

    def __init__(self, series: TracedSeries) -> None:
        if series.array_.dtype != object:
            raise UntraceableError("methods of text on numbers")
        self.series = series

    def _made(self, array: Any) -> TracedSeries:
        return TracedSeries(array, self.series.name)

    def lower(self) -> TracedSeries:
        """In lower case."""
        return self._made(changed_case(self.series.array_, "LOWER"))

    def upper(self) -> TracedSeries:
        """In upper case."""
        return self._made(changed_case(self.series.array_, "UPPER"))

    def startswith(self, prefix: Any, na: Any = None) -> TracedSeries:
        """Whether it begins so."""
        return self._found(prefix, "{}.*")

    def endswith(self, suffix: Any, na: Any = None) -> TracedSeries:
        """Whether it ends so."""
        return self._found(suffix, ".*{}")

    def _found(self, given: Any, form: str) -> TracedSeries:
        import re

        parts = [re.escape(each) for each in ([given] if isinstance(given, str) else given)]
        return self._made(matches(self.series.array_, form.format(f"(?:{'|'.join(parts)})")))

    def contains(
        self, pattern: str, case: bool = True, flags: int = 0, na: Any = None, regex: bool = True
    ) -> TracedSeries:
        """Whether a pattern is found in it."""
        import re

        inner = pattern if regex else re.escape(pattern)
        return self._made(matches(self.series.array_, f".*(?:{inner if case else f'(?i:{inner})'}).*"))

    def fullmatch(self, pattern: str, case: bool = True, flags: int = 0, na: Any = None) -> TracedSeries:
        """Whether all of it is what a pattern says."""
        return self._made(matches(self.series.array_, pattern if case else f"(?i:{pattern})"))

    def match(self, pattern: str, case: bool = True, flags: int = 0, na: Any = None) -> TracedSeries:
        """Whether it begins with a pattern."""
        return self._made(matches(self.series.array_, f"(?:{pattern if case else f'(?i:{pattern})'}).*"))

    def __getattr__(self, name: str) -> Any:
        """No other.

        Raises:
            UntraceableError: always.
        """
        raise UntraceableError(f"pandas.Series.str.{name}: ONNX has no operator for it")


def looked_up(array: Traced, mapping: Mapping[Any, Any], default: Any = None) -> Any:
    """What a mapping has for each value of a column.

    Args:
        array: Numbers or text.
        mapping: Values, which may be numbers or text.
        default: For what it does not have; None is a missing value.
    """
    keys = [key for key in mapping if not _pandas().isna(key)]
    texts = all(isinstance(mapping[key], str) for key in mapping) and len(mapping) > 0
    none = next((mapping[key] for key in mapping if _pandas().isna(key)), None)
    if default is None:
        default = "" if texts else np.nan
    values = [mapping[key] for key in keys]
    if array.dtype == object:
        keys = ["" if key is None else str(key) for key in keys]
        places = places_among(array, keys)
    else:
        known = np.array([float(key) for key in keys if not isinstance(key, str)])
        values = [value for key, value in zip(keys, values, strict=True) if not isinstance(key, str)]
        same = np.equal(astype(array, np.dtype(float))[:, None], known.reshape(1, -1))
        ends = np.concatenate([np.where(same, 1, 0), np.ones((1, 1), dtype=np.int64)], axis=1)
        places = np.argmax(ends, axis=1)
    table = np.array([*values, default], dtype=object if texts else None)
    if not texts and table.dtype.kind not in "biuf":
        table = np.array([np.nan if _pandas().isna(value) else float(value) for value in [*values, default]])
    found = take(table, places)
    if none is not None:
        found = np.where(missing(array), none, found)
    return found


def _operand(value: Any) -> Any:
    if is_series(value):
        return value.array_
    if isinstance(value, _pandas().Series):
        return value.to_numpy()
    return value


def _by_column(value: Any, names: Sequence[Any]) -> list[Any]:
    """An operand of a frame, column by column."""
    if is_frame(value):
        return [value.columns_[name] for name in names]
    if is_series(value):
        raise UntraceableError("a frame with a column in one expression, which pandas matches by the index")
    if isinstance(value, _pandas().Series):
        return [value[name] for name in names]
    if isinstance(value, Mapping):
        return [value[name] for name in names]
    if is_traced(value) and value.ndim == 2:
        return [value[:, place % value.shape[1]] for place in range(len(names))]
    if isinstance(value, np.ndarray | list | tuple) and not is_traced(value) and np.ndim(value):
        row = np.asarray(value).reshape(-1)
        return list(row if len(row) == len(names) else np.broadcast_to(row, len(names)))
    return [value] * len(names)


def _several(value: Any, count: int) -> list[Traced]:
    """A value for several columns."""
    if is_frame(value):
        return list(value.columns_.values())
    if is_traced(value) and value.ndim == 2:
        return [value[:, place] for place in range(count)]
    if isinstance(value, list | tuple) and len(value) == count:
        return [column_of(each) for each in value]
    return [column_of(value)] * count


def _assigned(array: Traced, key: Any, value: Any) -> Traced:
    condition = _plain(key)
    if not is_traced(condition) or condition.dtype != bool:
        raise UntraceableError(ROWS_CHOSEN)
    return np.where(condition, _fitting(value, array), array)


def _fitting(value: Any, array: Traced) -> Any:
    """A value that may stand among an array's; text that is missing is the empty text."""
    value = _plain(value)
    if array.dtype == object and (value is None or (isinstance(value, float) and np.isnan(value))):
        return ""
    return value


def _cast(array: Traced, dtype: Any) -> Traced:
    if dtype in ("category", str, "str", "string", object, "object") and array.dtype == object:
        return array
    if isinstance(dtype, str) and dtype in ("category", "str", "string"):
        raise UntraceableError(f"numbers as {dtype}")
    kind = getattr(dtype, "numpy_dtype", None) or dtype
    kind = kind.lower() if isinstance(kind, str) and kind in ("Int64", "Int32", "Float64", "Float32") else kind
    return astype(array, np.dtype(kind))


def rows_of(value: Any) -> bool:
    """Whether a traced value has a row for each that comes in."""
    if is_frame(value) or is_series(value):
        return True
    return is_traced(value) and value.ndim > 0 and is_rows(value.shape[0])
