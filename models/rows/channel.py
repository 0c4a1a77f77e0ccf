"""The format in which arrays are sent between processes: a line of JSON, then each array in NumPy's own format.

No pickle: a worker's answer is data, never code.
"""

from __future__ import annotations

import io
import json
import struct
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from pydantic import TypeAdapter

from onnxtool.models.signature import Tensors, dtype_name, numpy_dtype

_HEADER = TypeAdapter(tuple[Any, list[tuple[str, str, list[int]]]])
_LENGTH = struct.Struct(">Q")
_TEXTS = TypeAdapter(list[str | float | None])
"""A missing text is None or NaN."""


def send(file: BinaryIO, content: object, tensors: Tensors) -> None:
    """Write one message.

    Args:
        file: A real file or a `BytesIO`; NumPy cannot write to a pipe.
        content: Anything that JSON can say.
        tensors: Arrays of the dtypes of a `TensorSpec`.
    """
    arrays = [(name, dtype_name(array), list(array.shape)) for name, array in tensors.items()]
    file.write(json.dumps([content, arrays]).encode() + b"\n")
    for array in tensors.values():
        if dtype_name(array) == "string":
            text = json.dumps([_plain(value) for value in array.ravel()]).encode()
            array = np.frombuffer(text, dtype=np.uint8)  # noqa: PLW2901
        npy.write_array(file, np.asarray(array), allow_pickle=False)


def receive(file: BinaryIO) -> tuple[Any, Tensors]:
    """Read one message.

    Raises:
        ValueError: it is cut short or no message of `send`.
    """
    content, arrays = _HEADER.validate_json(file.readline())
    try:
        return content, {name: _array(file, dtype, shape) for name, dtype, shape in arrays}
    except (ArithmeticError, LookupError, MemoryError, RecursionError, SyntaxError, TypeError) as error:
        raise ValueError(f"no array: {error}") from error


def write_message(file: BinaryIO, content: object, tensors: Tensors) -> None:
    """Write one message to a pipe."""
    message = io.BytesIO()
    send(message, content, tensors)
    file.write(_LENGTH.pack(message.tell()))
    file.write(message.getbuffer())
    file.flush()


def read_message(file: BinaryIO, most: int) -> tuple[Any, Tensors]:
    """Read one message from a pipe.

    Args:
        file: The pipe.
        most: Bytes that it may have.

    Raises:
        EOFError: the other side has closed it.
        ValueError: it is no message, or too long.
    """
    head = file.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    if length > most:
        raise ValueError("too long")
    content = file.read(length)
    if len(content) < length:
        raise EOFError
    return receive(io.BytesIO(content))


def _array(file: BinaryIO, dtype: str, shape: list[int]) -> NDArray[Any]:
    array = npy.read_array(file, allow_pickle=False)
    if dtype == "string":
        texts = _TEXTS.validate_json(array.tobytes())
        array = np.empty(len(texts), dtype=object)
        array[:] = texts
    elif array.dtype.kind == "V" and not array.dtype.names:  # NumPy's format has no name for bfloat16
        array = array.view(numpy_dtype(dtype))
    return array.reshape(shape)


def _plain(value: Any) -> str | float | None:
    return value if value is None or isinstance(value, str | float) else str(value)
