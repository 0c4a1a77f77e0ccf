"""Rows of the user's own, block by block: a file larger than memory is read as it is used."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import DataError, require
from onnxtool.models.rows.data import (
    UNNAMED,
    as_frame,
    csv_format,
    data_format,
    plain_array,
    read_data,
    reading,
    table_columns,
)
from onnxtool.models.signature import Tensors

BLOCK_ROWS = 2**16
"""Rows of a block: 10 MB for 20 columns of float64."""

BLOCK_BYTES = 2**26
"""Bytes of a block's arrays, beyond which it has fewer rows: images are large."""


def stream_data(path: str | Path, text: Collection[str] = (), rows: int = BLOCK_ROWS) -> Iterator[Tensors]:
    """Read named arrays in blocks of rows. What each block holds is what `read_data` returns for all.

    JSON, arrays in Fortran's order, and archives whose arrays differ in length come in one block.

    Args:
        path: npz, npy, parquet, json or csv.
        text: Columns of a csv file that hold text even where they look like numbers.
        rows: Most rows of a block.

    Raises:
        DataError: the file does not exist, is damaged, or holds Python objects.
    """
    path = Path(path)
    kind = data_format(path)
    with reading(path):
        blocks = {"npy": _npy, "npz": _npz, "csv": _csv, "parquet": _parquet}.get(kind)
        found = blocks(path, text, rows) if blocks else None
        first = next(found, None) if found else None
    if found is None or first is None:
        yield read_data(path, text)
        return
    yield first
    while True:
        with reading(path):
            block = next(found, None)
        if block is None:
            return
        yield block


def _npy(path: Path, text: Collection[str], rows: int) -> Iterator[Tensors]:
    with path.open("rb") as file:
        shape, dtype = _header(file)
        if shape:
            rows = _fitting(rows, [(shape, dtype)])
            yield from ({UNNAMED: block} for block in _array_blocks(file, shape, dtype, rows))


def _npz(path: Path, text: Collection[str], rows: int) -> Iterator[Tensors]:
    with zipfile.ZipFile(path) as archive:
        files = {name.removesuffix(".npy"): archive.open(name) for name in archive.namelist()}
        headers = {name: _header(file) for name, file in files.items()}
        if len({shape[:1] for shape, _ in headers.values()}) != 1 or not all(s for s, _ in headers.values()):
            return
        rows = _fitting(rows, headers.values())
        arrays = {name: _array_blocks(file, *headers[name], rows) for name, file in files.items()}
        for blocks in zip(*arrays.values(), strict=True):
            yield dict(zip(arrays, blocks, strict=True))


def _csv(path: Path, text: Collection[str], rows: int) -> Iterator[Tensors]:
    pandas = require("pandas", "data")
    # What is text in the first rows is text in all: a later block may hold numbers alone there, or nothing.
    form = csv_format(path)
    first = table_columns(pandas.read_csv(path, dtype=dict.fromkeys(text, "str"), nrows=rows, **form))
    text = {*text, *(name for name, array in first.items() if array.dtype == object)}
    with pandas.read_csv(path, dtype=dict.fromkeys(text, "str"), chunksize=rows, **form) as frames:
        yield from map(table_columns, frames)


def _parquet(path: Path, text: Collection[str], rows: int) -> Iterator[Tensors]:
    with require("pyarrow.parquet", "data").ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=rows):
            yield table_columns(as_frame(batch))


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array in a file; no shape where it cannot be read row by row."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects.")
    return (() if fortran and len(shape) > 1 else shape), dtype


def _fitting(rows: int, headers: Iterable[tuple[tuple[int, ...], np.dtype[Any]]]) -> int:
    """As many rows as a block may have."""
    return max(1, min(rows, BLOCK_BYTES // max(1, sum(_row_bytes(shape, dtype) for shape, dtype in headers))))


def _row_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return math.prod(shape[1:]) * dtype.itemsize


def _array_blocks(
    file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], rows: int
) -> Iterator[NDArray[Any]]:
    size = _row_bytes(shape, dtype)
    done = 0
    while done < shape[0]:
        count = min(rows, shape[0] - done)
        content = file.read(count * size)
        if len(content) < count * size:
            raise ValueError("it is cut short.")
        # bytearray: PyTorch takes no array that it could not write to.
        yield plain_array(np.frombuffer(bytearray(content), dtype=dtype).reshape(count, *shape[1:]))
        done += count


def single_column(path: str | Path) -> RowReader:
    """The one column of a file, to be taken in pieces.

    Raises:
        DataError: the file holds several columns.
    """
    blocks = stream_data(path)
    first = next(blocks)
    if len(first) != 1:
        raise DataError(f"{path}: the file has columns {', '.join(first)}; keep one alone.")
    return RowReader(first, blocks)


class RowReader:
    """A column of a file, of which any number of rows is taken at a time.

    Attributes:
        name: The column's name, empty for an array's.
    """

    def __init__(self, first: Tensors, later: Iterator[Tensors]) -> None:
        self.name = next(iter(first))
        self._buffered, self._later = _flat(first[self.name]), later

    def take(self, rows: int) -> NDArray[Any]:
        """The next rows, fewer where the file ends."""
        while len(self._buffered) < rows and (block := next(self._later, None)) is not None:
            self._buffered = np.concatenate([self._buffered, _flat(block[self.name])])
        taken, self._buffered = self._buffered[:rows], self._buffered[rows:]
        return taken

    def rest(self) -> int:
        """The number of rows left."""
        return len(self._buffered) + sum(len(block[self.name]) for block in self._later)


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    return array.reshape(len(array), -1)[:, 0] if array.ndim else array.reshape(1)
