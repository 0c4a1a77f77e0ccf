"""Signatures of models: names, dtypes and shapes of inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import UsageError

Dim: TypeAlias = int | str
"""A fixed size, or the name of a dimension that is only known when the model runs."""

Tensors: TypeAlias = dict[str, NDArray[Any]]
"""Named arrays, in the model's own order. Strings are arrays of dtype object holding `str`."""

Role: TypeAlias = Literal["values", "label", "probabilities"]
"""What an output means. Labels are compared for equality and counted as flips."""

BATCH = "batch"

DTYPES = (
    "bool", "float16", "float32", "float64", "bfloat16",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "string",
)  # fmt: skip

_SPEC = re.compile(r"(?P<name>.+):(?P<dtype>\w+)\[(?P<dims>[^\[\]]*)\]")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: The tensor's name.
        dtype: One of `DTYPES`.
        shape: Dimensions; a string names a dynamic one, and `batch` the one that counts rows.
        columns: Names of the columns of a matrix input, when the source model knows them.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    columns: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> TensorSpec:
        """Read `NAME:DTYPE[DIM,DIM,...]`, as in `image:float32[batch,3,224,224]`.

        Raises:
            UsageError: the text is not of that form.
        """
        match = _SPEC.fullmatch(text.strip())
        if match is None or match["dtype"] not in DTYPES:
            raise UsageError(
                f"--input {text!r} is not NAME:DTYPE[DIMS], as in image:float32[batch,3,224,224]. "
                f"DTYPE is one of {', '.join(DTYPES)}."
            )
        dims = [dim.strip() for dim in match["dims"].split(",")] if match["dims"].strip() else []
        shape: list[Dim] = []
        for dim in dims:
            if dim.isdigit() and int(dim) > 0:
                shape.append(int(dim))
            elif dim.isidentifier():
                shape.append(dim)
            else:
                raise UsageError(f"--input {text!r}: dimension {dim!r} is neither a size above 0 nor a name.")
        return cls(match["name"], match["dtype"], tuple(shape))

    def __str__(self) -> str:
        """The text that `parse` reads."""
        return f"{self.name}:{self.dtype}[{','.join(map(str, self.shape))}]"

    @property
    def batched(self) -> bool:
        """Whether the first dimension is dynamic, so that it counts rows."""
        return bool(self.shape) and isinstance(self.shape[0], str)

    def renamed(self, name: str) -> TensorSpec:
        """The same tensor under another name."""
        return replace(self, name=name)


def in_double(specs: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The same tensors, those of float32 in float64."""
    return tuple(replace(spec, dtype="float64") if spec.dtype == "float32" else spec for spec in specs)


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of an array of the named dtype (`object` for strings)."""
    if name == "string":
        return np.dtype(object)
    if name == "bfloat16":
        import ml_dtypes  # comes with onnx

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(name)


def dtype_name(array: NDArray[Any]) -> str:
    """The name in `DTYPES` of an array's dtype; any array of text is `string`."""
    return "string" if array.dtype.kind in "OUST" else array.dtype.name
