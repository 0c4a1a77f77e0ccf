"""Arrays that write down what is done to them: NumPy's operators, universal functions and array functions.

A traced array has a tensor's name in a recording, and an example: an array of made-up or real rows, on which every
operation is done by NumPy itself. So dtypes and shapes are NumPy's own, promotion included, and nothing here repeats
its rules. The number of rows of an example is an unlikely prime; where that number turns up, a dimension counts rows.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from onnxtool.converters.tracing.recording import Recording, element

FUNCTIONS: dict[Any, Callable[..., Any]] = {}
"""NumPy's array functions, with what they do to traced arrays; the modules of each kind fill it."""

OPERATIONS: dict[str, Callable[..., Any]] = {}
"""What an array leaves to other modules, which fill it: `ufunc`, and `get` and `put` of parts."""


class UntraceableError(BaseException):
    """An operation that ONNX has no nodes for.

    It is no `Exception`, so that a handler in the user's own code does not take it for one of its own.
    """


class Trace:
    """One run of a function on traced arrays.

    Attributes:
        recording: What it has written so far.
        rows: Rows of every example.
        checks_pass: Whether a question about all rows of a data frame is a check of a library's, which refuses rows,
            and finds nothing.
    """

    def __init__(self, recording: Recording, rows: int, checks_pass: bool = False) -> None:
        self.recording = recording
        self.rows = rows
        self.checks_pass = checks_pass


CURRENT: ContextVar[Trace | None] = ContextVar("CURRENT", default=None)


def current() -> Trace:
    """The trace that is running."""
    trace = CURRENT.get()
    assert trace is not None  # noqa: S101 - traced arrays are made by a trace alone
    return trace


class Traced(NDArrayOperatorsMixin):
    """An array of a graph under construction; it passes for a `numpy.ndarray`.

    Attributes:
        name: The tensor's name.
        example: Its values for the example's rows.
    """

    __array_priority__ = 1000

    def __init__(self, name: str, example: NDArray[Any]) -> None:
        self.name = name
        self.example = example

    @property
    def __class__(self) -> Any:
        """What `isinstance` takes it for."""
        return np.ndarray

    @__class__.setter
    def __class__(self, kind: Any) -> None:
        raise UntraceableError("an array's class is changed")

    # -- What code asks of an array before it computes ----------------------------------------------------------

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its dtype."""
        return self.example.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, with the example's number of rows."""
        return self.example.shape

    @property
    def ndim(self) -> int:
        """Its number of dimensions."""
        return self.example.ndim

    @property
    def size(self) -> int:
        """Its number of elements, with the example's number of rows."""
        return self.example.size

    @property
    def T(self) -> Traced:  # noqa: N802 - NumPy's name
        """Its transpose."""
        return transpose(self)

    @property
    def flags(self) -> Any:
        """Its flags."""
        return self.example.flags

    def __len__(self) -> int:
        """Its length, with the example's number of rows."""
        return len(self.example)

    def __repr__(self) -> str:
        """Its dtype and dimensions."""
        return f"traced {self.dtype}[{', '.join('batch' if is_rows(size) else str(size) for size in self.shape)}]"

    def __iter__(self) -> Iterator[Traced]:
        """Its parts along the first dimension, which must not count rows."""
        if self.ndim and is_rows(self.shape[0]):
            raise UntraceableError(
                "a loop over the rows. Write it for the whole array at once, as NumPy does: x[:, 0] for a column"
            )
        return iter([self[place] for place in range(len(self))])

    def _values(self, *_: Any, **__: Any) -> Any:
        raise UntraceableError(
            "code that needs the values of the rows themselves: NumPy's own functions on arrays are traced, "
            "not what turns them into Python's numbers, lists or other libraries' arrays"
        )

    def __bool__(self) -> bool:
        """No: a graph cannot take another way for other values.

        Raises:
            UntraceableError: always.
        """
        raise UntraceableError(
            "a branch that depends on the values of the rows. Use numpy.where(condition, yes, no)"
        )

    __array__ = __float__ = __int__ = __index__ = __complex__ = tolist = item = tobytes = _values
    nonzero = sort = partition = _values

    # -- Operators and functions --------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """A universal function; see `ufuncs`."""
        if any(_is_table(value) for value in inputs):
            return NotImplemented  # a data frame knows better
        return OPERATIONS["ufunc"](ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """Any other function of NumPy."""
        return call_function(function, args, kwargs)

    def __matmul__(self, other: Any) -> Any:
        """The matrix product."""
        return np.matmul(self, other)

    def __getitem__(self, key: Any) -> Any:
        """A part of it."""
        return OPERATIONS["get"](self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Replace a part of it: it becomes another tensor."""
        self.become(OPERATIONS["put"](self, key, value))

    def become(self, other: Traced) -> None:
        """Take another array's place, in one's own dtype."""
        other = astype(broadcast(other, self.shape), self.dtype)
        self.name, self.example = other.name, other.example

    def copy(self, *_: Any, **__: Any) -> Traced:
        """The same, so that what is assigned to one is not to the other."""
        return Traced(self.name, self.example)

    __copy__ = __deepcopy__ = copy

    def astype(self, dtype: Any, *_: Any, **__: Any) -> Traced:
        """In another dtype."""
        return astype(self, np.dtype(dtype))

    def reshape(self, *shape: Any, order: str = "C") -> Traced:
        """In another shape."""
        return reshape(self, shape[0] if len(shape) == 1 else shape, order)

    def ravel(self, order: str = "C") -> Traced:
        """In one dimension."""
        return reshape(self, -1, order)

    flatten = ravel

    def transpose(self, *axes: Any) -> Traced:
        """With its dimensions in another order."""
        return transpose(self, axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None)

    def fill(self, value: Any) -> None:
        """Fill it with one value."""
        self.become(broadcast(lift(value, self.dtype), self.shape))

    def view(self, *_: Any, **__: Any) -> Any:
        """Raises UntraceableError: memory is not for a graph."""
        raise UntraceableError("a view of memory as another dtype")

    def __getattr__(self, name: str) -> Any:
        """NumPy's functions that are methods too: `x.sum(axis=1)` for `numpy.sum(x, axis=1)`."""
        function = getattr(np, name, None) if not name.startswith("_") else None
        if name in METHODS and function is not None:
            return lambda *args, **kwargs: function(self, *args, **kwargs)
        if hasattr(np.ndarray, name) and not name.startswith("__"):
            raise UntraceableError(f"numpy.ndarray.{name}, which has no translation")
        raise AttributeError(f"'numpy.ndarray' object has no attribute {name!r}")


METHODS = frozenset(
    {
        "sum", "mean", "std", "var", "min", "max", "prod", "any", "all", "argmax", "argmin", "clip", "round",
        "squeeze", "swapaxes", "repeat", "take", "dot", "cumsum", "ptp", "cumprod", "argsort", "conj", "diagonal",
    }
)  # fmt: skip
"""Methods of an array that are functions of its module as well."""


def call_function(function: Any, args: Any, kwargs: Any) -> Any:
    """Do what a function of NumPy does, where it is known here.

    Raises:
        UntraceableError: it is not.
    """
    known = FUNCTIONS.get(function)
    if known is None:
        module = getattr(function, "__module__", "numpy") or "numpy"
        raise UntraceableError(f"{module}.{getattr(function, '__name__', function)}, which has no translation")
    return known(*args, **kwargs)


def implements(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what functions of NumPy do to traced arrays."""

    def register(implementation: Callable[..., Any]) -> Callable[..., Any]:
        FUNCTIONS.update(dict.fromkeys(functions, implementation))
        return implementation

    return register


def _is_table(value: Any) -> bool:
    return type(value).__name__ in ("TracedFrame", "TracedSeries")


def is_rows(size: int) -> bool:
    """Whether a dimension counts rows."""
    trace = CURRENT.get()
    return trace is not None and size == trace.rows


def is_traced(value: Any) -> bool:
    """Whether a value is a traced array; `isinstance` says so of every array."""
    return type(value) is Traced


def row_axis(array: Traced) -> int | None:
    """The dimension that counts rows.

    Raises:
        UntraceableError: there are two.
    """
    found = [axis for axis, size in enumerate(array.shape) if is_rows(size)]
    if len(found) > 1:
        raise UntraceableError("an array of rows by rows: what a row gives would depend on the others")
    return found[0] if found else None


# -- Making arrays ----------------------------------------------------------------------------------------------


def emit(kind: str, inputs: Sequence[Traced], example: Any, domain: str = "", **attributes: Any) -> Traced:
    """Write an operator whose result is known for the example."""
    name = current().recording.node(kind, [each.name for each in inputs], domain, **attributes)
    return Traced(name, np.asarray(example))


def lift(value: Any, dtype: Any = None) -> Traced:
    """A constant as a traced array; a constant that repeats one row for each row of the example is that row.

    Raises:
        UntraceableError: a constant has a different value for each row.
    """
    if is_traced(value):
        return value
    array = np.asarray(value, dtype=dtype)
    if array.dtype.kind in "US":
        array = array.astype(object)
    for axis, size in enumerate(array.shape):
        if is_rows(size):
            first = np.take(array, [0], axis=axis)
            if not np.array_equal(np.broadcast_to(first, array.shape), array, equal_nan=array.dtype.kind == "f"):
                raise UntraceableError("an array with a value of its own for each row, which no input brings")
            array = first
    return Traced(current().recording.constant(array), array)


def integers(*values: int) -> Traced:
    """A vector of int64: shapes, axes, places."""
    return lift(np.array(values, dtype=np.int64))


def astype(array: Traced, dtype: np.dtype[Any]) -> Traced:
    """In another dtype, as NumPy casts."""
    dtype = np.dtype(object) if dtype.kind in "US" else dtype
    if dtype == array.dtype:
        return array
    if object in (dtype, array.dtype):
        raise UntraceableError("numbers that become text, or text that becomes numbers")
    with np.errstate(all="ignore"):
        return emit("Cast", [array], array.example.astype(dtype), to=element(dtype))


def dims(shape: Sequence[int]) -> Traced:
    """A shape as a tensor, rows counted when the model runs."""
    if not any(map(is_rows, shape)):
        return integers(*shape)
    parts = [row_count() if is_rows(size) else integers(size) for size in shape]
    return parts[0] if len(parts) == 1 else emit("Concat", parts, np.array(shape, dtype=np.int64), axis=0)


def row_count() -> Traced:
    """How many rows there are, as a vector of one int64."""
    trace = current()
    return Traced(ROWS, np.array([trace.rows], dtype=np.int64))


ROWS = "traced_rows"
"""Name of a vector of one int64 that holds the number of rows; who makes a graph of a recording writes it."""


def broadcast(array: Traced, shape: Sequence[int]) -> Traced:
    """Spread over a shape, as NumPy does."""
    if tuple(shape) == array.shape:
        return array
    example = np.broadcast_to(array.example, tuple(shape))
    if array.dtype == bool:  # ONNX Runtime has Expand for truth values
        return emit("Expand", [array, dims(shape)], example)
    return emit("Expand", [array, dims(shape)], example)


def reshape(array: Any, shape: Any, order: str = "C") -> Traced:
    """In another shape.

    Raises:
        UntraceableError: rows are mixed with other dimensions in a way that depends on their number.
    """
    if order not in ("C", "A", "K"):
        raise UntraceableError("a reshape in Fortran's order")
    array = lift(array)
    sizes = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    example = array.example.reshape(sizes)
    target = [-1 if is_rows(size) else int(size) for size in example.shape]
    if target.count(-1) == 0 and row_axis(array) is not None:
        multiple = [place for place, size in enumerate(example.shape) if size % current().rows == 0]
        if len(multiple) != 1:
            raise UntraceableError("a shape that fits this number of rows alone")
        target[multiple[0]] = -1
    if target.count(-1) > 1:
        raise UntraceableError("an array of rows by rows: what a row gives would depend on the others")
    return emit("Reshape", [array, integers(*target)], example)


def transpose(array: Any, axes: Any = None) -> Traced:
    """With its dimensions in another order, reversed where none is given."""
    array = lift(array)
    order = [operator.index(axis) % array.ndim for axis in (axes or reversed(range(array.ndim)))]
    if order == list(range(array.ndim)):
        return array
    return emit("Transpose", [array], array.example.transpose(order), perm=order)


def concatenate(arrays: Sequence[Any], axis: int = 0) -> Traced:
    """Joined along a dimension, which must not count rows."""
    parts = [lift(each) for each in arrays]
    shapes = [list(part.shape) for part in parts]
    axis = axis % len(shapes[0])
    if is_rows(max(shape[axis] for shape in shapes)):
        raise UntraceableError("rows put under rows: a model gives one row for each that it gets")
    whole = [max(sizes) for sizes in zip(*shapes, strict=True)]
    dtype = (
        np.result_type(*(part.dtype for part in parts)) if not any(p.dtype == object for p in parts) else object
    )
    same = []
    for part, shape in zip(parts, shapes, strict=True):
        target = [size if place != axis else shape[axis] for place, size in enumerate(whole)]
        same.append(broadcast(astype(part, np.dtype(dtype)), target))  # constants stand for each row
    if len(same) == 1:
        return same[0]
    return emit("Concat", same, np.concatenate([part.example for part in same], axis=axis), axis=axis)
