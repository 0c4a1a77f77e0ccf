"""Running a function of NumPy or pandas on traced rows, and keeping what it did as nodes of ONNX.

A library for this would be welcome, but ndonnx and onnx-array-api follow the array API standard alone: NumPy's own
functions (`numpy.log1p(x)`), which are what people write, do not know their arrays, and neither knows data frames.
"""

from __future__ import annotations

import linecache
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.converters.tracing.arrays import (
    CURRENT,
    Trace,
    Traced,
    UntraceableError,
    astype,
    broadcast,
    concatenate,
    emit,
    integers,
    lift,
)
from onnxtool.converters.tracing.recording import Recording
from onnxtool.errors import ConversionError

SIZES = (1009, 1013)
"""Rows of the examples of two runs: primes that are no number of columns. Both runs must write the same."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that comes in: some columns side by side.

    Attributes:
        dtype: NumPy's; object for text.
        width: How many columns.
    """

    dtype: np.dtype[Any]
    width: int


@dataclass(frozen=True, slots=True)
class Given:
    """What the function is given, as it was seen once.

    Attributes:
        columns: A few values of each column.
        names: The columns' names, if it is given a data frame.
    """

    columns: tuple[NDArray[Any], ...]
    names: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A traced function.

    Attributes:
        recording: Its nodes. They read the tensors `input_name(0)`, ... and, if they need it, `arrays.ROWS`.
        outputs: Name, and example, of each tensor that the function gives.
        names: Names of the columns where it gives a data frame: then each output is one column.
    """

    recording: Recording
    outputs: tuple[tuple[str, NDArray[Any]], ...]
    names: tuple[Any, ...] | None = None


def input_name(place: int) -> str:
    """The name that a recording has for a tensor that comes in."""
    return f"traced_input_{place}"


def trace(
    function: Callable[[Any], Any],
    tensors: Sequence[Tensor],
    given: Given,
    opset: int,
    *,
    modules: Sequence[ModuleType] = (),
    what: str,
    checks_pass: bool = False,
) -> Made:
    """Run a function on traced rows.

    Args:
        function: Takes an array or a data frame, and gives one.
        tensors: What comes in.
        given: The form in which the function is given it.
        opset: Version of the default operator set.
        modules: The modules that the function is written in.
        what: The step that the function is of, for messages.
        checks_pass: Whether questions about all rows are checks that refuse them; see `arrays.Trace`.

    Raises:
        ConversionError: it does something that ONNX cannot; the message names the line of the user's own code.
    """
    try:
        return _traced_twice(function, tensors, given, opset, modules, what, checks_pass, whole=False)
    except ConversionError:
        kinds = {column.dtype.kind for column in given.columns}
        if not kinds & set("iu"):
            raise
        # Whole numbers that come as floats are traced as floats, unless the code needs them whole.
        return _traced_twice(function, tensors, given, opset, modules, what, checks_pass, whole=True)


def _traced_twice(
    function: Any,
    tensors: Any,
    given: Given,
    opset: int,
    modules: Any,
    what: str,
    checks_pass: bool,
    *,
    whole: bool,
) -> Made:
    first, second = (
        _traced(function, tensors, given, opset, modules, what, checks_pass, rows, whole) for rows in SIZES
    )
    if not first.recording.same_as(second.recording):
        raise ConversionError(
            f"{what} does something else for another number of rows, or each time that it runs, "
            "which an ONNX graph cannot."
        )
    return first


def _traced(
    function: Any,
    tensors: Any,
    given: Given,
    opset: int,
    modules: Any,
    what: str,
    checks_pass: bool,
    rows: int,
    whole: bool,
) -> Made:
    from onnxtool.converters.tracing.standins import replaced

    recording = Recording(opset)
    token = CURRENT.set(Trace(recording, rows, checks_pass))
    try:
        with replaced(modules), np.errstate(all="ignore"):
            columns = _columns(tensors, given, rows, whole)
            if given.names is None:
                argument: Any = _matrix(columns)
            else:
                from onnxtool.converters.tracing.frames import TracedFrame

                argument = TracedFrame(dict(zip(given.names, columns, strict=True)))
            return _made(recording, function(argument), rows)
    except (UntraceableError, Exception) as error:
        if isinstance(error, ConversionError):
            raise
        raise ConversionError(_explained(error, what)) from error
    finally:
        CURRENT.reset(token)


def _columns(tensors: Sequence[Tensor], given: Given, rows: int, whole: bool) -> list[Traced]:
    """Each column as a vector, in the dtype in which the function is to see it."""
    found: list[Traced] = []
    seen = iter(given.columns)
    for place, tensor in enumerate(tensors):
        for offset in range(tensor.width):
            values = next(seen)
            target = _target(tensor.dtype, values.dtype, whole)
            example = np.resize(values, rows).astype(target)
            matrix = Traced(input_name(place), np.resize(values, (rows, tensor.width)).astype(tensor.dtype))
            column = emit("Gather", [matrix, lift(np.array(offset))], example.astype(tensor.dtype), axis=1)
            cast = astype(column, target)
            found.append(Traced(cast.name, example))
    return found


def _target(comes: np.dtype[Any], seen: np.dtype[Any], whole: bool) -> np.dtype[Any]:
    """The dtype in which the function sees a column, which may come in another."""
    if comes == object or seen.kind in "OUS":
        return np.dtype(object)
    if seen.kind in "iu" and comes.kind == "f":
        return seen if whole else np.dtype(np.float64)
    return seen


def _matrix(columns: list[Traced]) -> Traced:
    return concatenate([column[:, None] for column in columns], 1)


def _made(recording: Recording, result: Any, rows: int) -> Made:
    from onnxtool.converters.tracing.frames import is_frame, is_series

    if is_frame(result):
        names = tuple(result.columns_)
        return Made(recording, tuple((a.name, a.example) for a in result.columns_.values()), names)
    if is_series(result):
        return Made(recording, ((result.array_.name, result.array_.example),))
    if isinstance(result, list | tuple):
        result = np.stack(result)
    if hasattr(result, "toarray"):
        raise UntraceableError("a sparse matrix, which ONNX has no operators for")
    array = lift(result)
    if array.ndim == 0 or array.shape[0] != rows:
        if array.ndim == 0 or array.shape[0] != 1:
            raise UntraceableError("a result that does not have one row for each that comes in")
        array = broadcast(array, (rows, *array.shape[1:]))
    if array.name.startswith(("traced_input", "traced_constant")):
        array = emit("Identity", [array], array.example)
    return Made(recording, ((array.name, array.example),))


LIBRARIES = frozenset({"numpy", "pandas", "sklearn", "scipy", "joblib", "onnxtool", "skl2onnx", "onnx"})


def _explained(error: BaseException, what: str) -> str:
    """What cannot be traced, by the last line of the user's own code."""
    reason = str(error) if isinstance(error, UntraceableError) else f"{type(error).__name__}: {error}"
    frames = [
        (frame.f_code, line, str(frame.f_globals.get("__name__", "")).partition(".")[0])
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    own = [
        (code, line)
        for code, line, root in frames
        if root not in LIBRARIES and root not in sys.stdlib_module_names
    ] or [(code, line) for code, line, root in frames if root == "__main__"]
    if not own:
        return f"{what} cannot be written as ONNX: {reason.rstrip('.')}."
    code, line = own[-1]
    text = linecache.getline(code.co_filename, line).strip()
    shown = f" `{text}`" if text else ""
    return (
        f"{what} cannot be written as ONNX: {Path(code.co_filename).name}, line {line}, in {code.co_name}:{shown} "
        f"is {reason.rstrip('.')}."
    )


__all__ = ["Given", "Made", "Tensor", "integers", "trace"]
