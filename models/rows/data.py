"""Rows of the user's own: reading them from a file, and fitting them to a model's inputs."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from itertools import repeat
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import DataError, require
from onnxtool.models.rows.batches import Batching
from onnxtool.models.rows.ragged import from_lists, is_ragged
from onnxtool.models.safety.archives import DAMAGE
from onnxtool.models.signature import Tensors, TensorSpec, dtype_name, numpy_dtype

Data: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | NDArray[Any] | Any
"""A file, a mapping from input name to array, a single array, or a pandas DataFrame."""

UNNAMED = ""
"""Key of the one array of an `.npy` file, which has no name."""

_SHORT = ("float32", "float16")
_ROWS_SEEN = 1000
_NO_TEXT = np.zeros(0, dtype=object)
_FORMATS = (
    "Known are .npz, .npy, .parquet, .json (records, or name to nested lists) and .csv with a header, and commas, "
    "semicolons or tabs between columns."
)


_HEADERS = (TokenError, SyntaxError, TypeError, OverflowError)
"""What NumPy raises of a damaged header, which is Python."""


def to_arrays(data: Data) -> tuple[Tensors, str]:
    """Take data in any of its forms, and say in a few words where it came from.

    Raises:
        DataError: the file cannot be read, or the values are neither numbers nor text.
    """
    if isinstance(data, str | os.PathLike):
        return read_data(Path(data)), str(data)
    try:
        if hasattr(data, "columns"):
            return table_columns(data), "a data frame"
        if isinstance(data, Mapping):
            return {str(name): plain_array(_array(values)) for name, values in data.items()}, "arrays"
        return {UNNAMED: plain_array(np.asarray(data))}, "an array"
    except ValueError as error:
        raise DataError(f"The data cannot be used: {error}") from error


def read_data(path: str | Path, text: Collection[str] = ()) -> Tensors:
    """Read named arrays, the format recognised by content.

    Args:
        path: npz, npy, parquet, json or csv.
        text: Columns of a csv file that hold text even where they look like numbers ("01234").

    Returns:
        Arrays whose first axis counts rows. A table gives one 1-D array a column; text is of dtype object,
        and missing text is the empty string, since ONNX has no missing text. Lists of unequal lengths are as
        `models.rows.ragged` says.

    Raises:
        DataError: the file does not exist, is damaged, or holds Python objects.
    """
    path = Path(path)
    kind = data_format(path)
    with reading(path):
        if kind in ("npy", "npz"):
            return _read_numpy(path)
        if kind == "parquet":
            return table_columns(_parquet(path))
        if kind == "json":
            return _read_json(path)
        return table_columns(
            require("pandas", "data").read_csv(path, dtype=dict.fromkeys(text, "str"), **csv_format(path))
        )


def csv_format(path: Path) -> dict[str, str]:
    """Arguments of `pandas.read_csv` beyond its defaults: semicolons or tabs where the header has them, and no comma.

    Files with semicolons come from countries in which a comma is the decimal point; a file that has such numbers and
    none with a point is read so.
    """
    pandas = require("pandas", "data")
    header = pandas.read_csv(path, nrows=0).columns
    separator = next((one for one in (";", "\t") if len(header) == 1 and one in header[0]), None)
    if separator is None:
        return {}
    seen = pandas.read_csv(path, sep=separator, dtype=str, nrows=_ROWS_SEEN).stack()
    commas, points = (seen.str.fullmatch(rf"[-+]?\d+{mark}\d+").any() for mark in (",", r"\."))
    return {"sep": separator, **({"decimal": ","} if commas and not points else {})}


def data_format(path: Path) -> Literal["npy", "npz", "parquet", "json", "csv"]:
    """The format of a data file, by its content.

    Raises:
        DataError: there is no such file, or it is empty.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such data file.")
    with path.open("rb") as file:
        head = file.read(512)
    if not head.strip():
        raise DataError(f"{path} is empty. {_FORMATS}")
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PK"):
        return "npz"
    if head.startswith(b"PAR1"):
        return "parquet"
    return "json" if head.lstrip()[:1] in (b"[", b"{") else "csv"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what is raised while a data file is read into a `DataError` that names it."""
    try:
        yield
    except (*DAMAGE, *_HEADERS, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read: {str(error).splitlines()[0] if str(error) else error!r} {_FORMATS}"
        ) from error


def text_columns(data: Tensors, specs: Sequence[TensorSpec]) -> list[str]:
    """Columns that the model takes as text, and that were read as numbers."""
    expected = [spec.name for spec in specs if spec.dtype == "string"]
    return [name for name in expected if dtype_name(data.get(name, _NO_TEXT)) != "string"]


def fit_data(
    data: Tensors, specs: Sequence[TensorSpec], path: str, *, as_they_came: bool = False
) -> tuple[Tensors, list[str]]:
    """Map arrays to a model's inputs.

    Names decide; a single unnamed array, or a table for a single matrix, needs no names. Numbers are
    converted where that loses nothing but the rounding of floats.

    Args:
        data: What `read_data` returned.
        specs: The model's inputs.
        path: Where the data came from, for messages. A csv file is read again where the model takes text in a
            column that looks like numbers.
        as_they_came: Whether numbers keep their dtype, for a source that takes any; columns of one matrix get the
            dtype that holds them all, as in a data frame's values.

    Returns:
        One array an input, and notes on columns that were ignored or rounded.

    Raises:
        DataError: names, dtypes or shapes do not match; the message shows both sides.
    """
    if not specs:
        raise DataError(f"{path}: the model has no inputs, so it takes no data.")
    notes: list[str] = []
    text = text_columns(data, specs)
    if text and ".csv" in Path(path).suffixes:
        data = data | {name: array for name, array in read_data(path, text).items() if name in data}
    by_name = _match(data, specs, path)
    used = {id(array) for arrays in by_name.values() for array in arrays}
    ignored = [name for name, array in data.items() if id(array) not in used]
    if ignored:
        notes.append(f"Ignored, since the model does not read them: {_listed(ignored)}.")
    for name, array in data.items():
        if id(array) in used and array.dtype.kind == "V":
            raise DataError(f"{path}: column {name!r} {_reason(array)}")
        if id(array) in used and array.dtype.kind in "mM":
            dates = array.dtype.kind == "M"
            remedy = "(frame[column] - pandas.Timestamp(0)).dt" if dates else "frame[column].dt"
            raise DataError(
                f"{path}: column {name!r} holds {'dates' if dates else 'durations'}, for which ONNX has no dtype. "
                f"Give numbers or text, as those on which the model was fitted: for seconds, {remedy}.total_seconds()"
            )
    tensors: Tensors = {}
    for spec in specs:
        names = spec.columns if len(spec.columns) == len(by_name[spec.name]) else repeat(spec.name)
        arrays = [
            _cast(array, spec, path, name, as_they_came=as_they_came)
            for array, name in zip(by_name[spec.name], names, strict=False)
        ]
        tensor = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)
        if tensor.ndim == 1 and len(spec.shape) == 2:
            tensor = tensor[:, None]
        _check_shape(tensor, spec, path)
        tensors[spec.name] = tensor
        if any(array.dtype == np.float64 for array in by_name[spec.name]) and tensor.dtype in _SHORT:
            notes.append(
                f"The model takes {spec.dtype} for {spec.name!r}, so it got the data's float64 cast to it."
            )
    rows = Batching.of(specs).counts(tensors)
    if len(rows) > 1:
        raise DataError(f"{path}: inputs differ in their number of rows: {_shapes(tensors)}.")
    if rows == {0}:
        raise DataError(f"{path} has no rows.")
    return tensors, notes


def count_rows(tensors: Tensors, specs: Sequence[TensorSpec]) -> int:
    """Number of rows; see `models.rows.batches`."""
    return Batching.of(specs).count(tensors)


def _match(data: Tensors, specs: Sequence[TensorSpec], path: str) -> dict[str, list[NDArray[Any]]]:
    found = {}
    for spec in specs:
        columns = [data[column] for column in spec.columns if column in data and data[column].ndim == 1]
        if columns and len(columns) == len(spec.columns):  # before its name: a column may be called so
            found[spec.name] = columns
        elif spec.name in data:
            found[spec.name] = [data[spec.name]]
    if len(found) == len(specs):
        return found
    first = specs[0]
    if len(specs) == 1 and set(data) == {UNNAMED}:
        return {first.name: [data[UNNAMED]]}
    table = len(specs) == 1 and len(first.shape) == 2 and all(array.ndim == 1 for array in data.values())
    if table and not first.columns and (isinstance(first.shape[1], str) or first.shape[1] == len(data)):
        return {first.name: list(data.values())}
    expected = [name for spec in specs if spec.name not in found for name in spec.columns or (spec.name,)]
    missing = [name for name in expected if name not in data]
    raise DataError(
        f"{path} does not fit the model: it lacks {_listed(missing)}.\n"
        f"The model takes {_listed(map(str, specs))}; the data has {_shapes(data)}."
    )


def _cast(array: NDArray[Any], spec: TensorSpec, path: str, column: str, *, as_they_came: bool) -> NDArray[Any]:
    have, expected_dtype = dtype_name(array), spec.dtype
    target = numpy_dtype(expected_dtype)
    if have == expected_dtype:
        return array.astype(target, copy=False)
    if not _convertible(array, target):
        raise DataError(
            f"{path}: input {column!r} is {expected_dtype} in the model and {have} in the data, "
            f"which cannot be converted without loss. Model: {spec}; data: {have}{list(array.shape)}. "
            "Give the column as it was when the model was fitted."
        )
    if as_they_came:
        return array
    with np.errstate(over="ignore"):
        return array.astype(target)


def _convertible(array: NDArray[Any], target: np.dtype[Any]) -> bool:
    """Whether a cast loses nothing but the rounding of floats."""
    if target.kind == "O" or array.dtype.kind == "O":
        return False
    if target.kind not in "iub":
        return True
    with np.errstate(invalid="ignore"):
        return bool(np.array_equal(array.astype(target), array))


def _check_shape(tensor: NDArray[Any], spec: TensorSpec, path: str) -> None:
    fixed = [(axis, dim) for axis, dim in enumerate(spec.shape) if isinstance(dim, int)]
    # A fixed number of rows is no mismatch: the data is cut into pieces of that size.
    if tensor.ndim != len(spec.shape) or any(tensor.shape[axis] != dim for axis, dim in fixed if axis > 0):
        raise DataError(f"{path}: shapes differ. Model: {spec}; data: {spec.dtype}{list(tensor.shape)}.")


def _read_numpy(path: Path) -> Tensors:
    with path.open("rb") as file:
        content = np.load(file, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {UNNAMED: plain_array(content)}
        return {name: plain_array(content[name]) for name in content.files}


def _read_json(path: Path) -> Tensors:
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return table_columns(require("pandas", "data").DataFrame.from_records(content))
    if isinstance(content, dict):
        return {str(name): plain_array(_array(values)) for name, values in content.items()}
    return {UNNAMED: plain_array(_array(content))}


def table_columns(frame: Any) -> Tensors:
    """A data frame's columns, a 1-D array each.

    Numbers of NumPy's, pandas' and Arrow's dtypes keep their values; a missing one makes the column float64, with
    NaN. `Decimal` becomes float64, as in scikit-learn. Dates and durations come as they are, and what is neither
    number nor text comes as `_without_values` says: `fit_data` refuses them where the model reads them.
    """
    columns = {}
    for name in frame.columns:
        try:
            columns[str(name)] = plain_array(_column(frame[name]))
        except (ValueError, TypeError) as error:
            columns[str(name)] = _without_values(frame[name], error)
    return columns


def _without_values(series: Any, error: Exception) -> NDArray[Any]:
    """An array that stands for a column which no model can read; the name of its field says why."""
    return np.zeros(len(series), dtype=[(f"{series.dtype}: {error}", "V1")])


def _reason(array: NDArray[Any]) -> str:
    kind, _, why = (array.dtype.names or ("",))[0].partition(": ")
    return (
        f"({kind}): {why} Convert it to numbers or text, as those on which the model was fitted, or leave it out."
    )


def _parquet(path: Path) -> Any:
    try:
        return require("pandas", "data").read_parquet(path)
    except TypeError:
        return as_frame(require("pyarrow.parquet", "data").read_table(path))


def as_frame(table: Any) -> Any:
    """An Arrow table or batch as a data frame, also where pandas does not know the dtype that it noted there.

    pandas 3.0 writes that a column is an Arrow dictionary, and cannot read what it wrote.
    """
    try:
        return table.to_pandas()
    except TypeError:
        index = [one for one in table.schema.pandas_metadata["index_columns"] if isinstance(one, str)]
        return table.drop_columns(index).to_pandas(ignore_metadata=True)


def _column(series: Any) -> NDArray[Any]:
    kind = getattr(series.dtype, "kind", "O")
    if kind in "mM":
        return np.asarray(series.to_numpy(dtype=f"{kind}8[ns]"))
    if kind in "biuf":
        if series.isna().any():
            return np.asarray(series.to_numpy(dtype="float64", na_value=np.nan))
        return np.asarray(series.to_numpy())
    values = series.astype(object)
    if all(isinstance(value, str) for value in values[series.notna()]):
        return np.asarray(values.where(series.notna(), "").to_numpy(dtype=object))
    if all(isinstance(value, Decimal | int | float | np.number) for value in values[series.notna()]):
        numbers = [np.nan if missing else value for value, missing in zip(values, series.isna(), strict=True)]
        whole = all(isinstance(value, bool | int | np.integer) for value in numbers)
        found = np.asarray(numbers, dtype=None if whole else np.float64)
        return found.astype(np.float64) if found.dtype == object else found  # beyond 64 bits
    # Nested lists (parquet) become one array; what is neither text nor numbers is refused there.
    return from_lists(values.tolist())


def _array(values: Any) -> NDArray[Any]:
    return from_lists(values) if isinstance(values, list | tuple) else np.asarray(values)


def plain_array(array: NDArray[Any]) -> NDArray[Any]:
    """An array whose text, if it is text, is of dtype object.

    Raises:
        ValueError: it holds neither numbers nor text.
    """
    if array.dtype.kind in "US":
        return array.astype(str).astype(object)
    if is_ragged(array):
        return array
    if array.dtype.kind == "O" and not all(isinstance(value, str) for value in array.flat):
        raise ValueError("it holds values that are neither numbers nor text.")
    if array.dtype.kind not in "biufOmM":
        raise ValueError(f"it holds values of dtype {array.dtype}.")
    return array


def _shapes(data: Tensors) -> str:
    return _listed(f"{name or 'one array'}:{dtype_name(array)}{list(array.shape)}" for name, array in data.items())


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(names[:12])
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"
