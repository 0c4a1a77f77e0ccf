"""How far apart two numbers may be and still say the same."""

from __future__ import annotations

from onnxtool.reports.model import Tolerance

# By the coarser dtype of the two. float32 allows about a thousand roundings (2^-24 each) of the largest term,
# which deep networks need when two runtimes sum in another order; half precisions allow about ten of theirs.
_DEFAULTS = {
    "bfloat16": (2e-2, 1e-2),
    "float16": (1e-2, 1e-3),
    "float32": (1e-4, 1e-5),
    "float64": (1e-7, 1e-9),
}
PRECISION = tuple(_DEFAULTS)
"""Floating dtypes from the coarsest to the finest."""


def coarser(first: str, second: str) -> str:
    """The less precise of two floating dtypes; a dtype that is not floating yields to the other."""
    known = [name for name in (first, second) if name in PRECISION]
    return min(known, key=PRECISION.index) if known else first


def tolerance(
    source_dtype: str, onnx_dtype: str, rtol: float | None = None, atol: float | None = None
) -> Tolerance:
    """The tolerance for an output, by dtype where the user gave none.

    Args:
        source_dtype: Dtype of the source's output.
        onnx_dtype: Dtype of the ONNX model's output.
        rtol: Relative tolerance of the user's, in units of |source|.
        atol: Absolute tolerance of the user's.
    """
    dtype = coarser(source_dtype, onnx_dtype)
    if dtype not in _DEFAULTS:
        return Tolerance(rtol=0.0, atol=0.0, why=f"{onnx_dtype} must be equal")
    default_rtol, default_atol = _DEFAULTS[dtype]
    if rtol is None and atol is None:
        return Tolerance(rtol=default_rtol, atol=default_atol, why=f"default for {dtype}")
    return Tolerance(
        rtol=default_rtol if rtol is None else rtol,
        atol=default_atol if atol is None else atol,
        why="given by the user"
        if None not in (rtol, atol)
        else f"given by the user, the rest default for {dtype}",
    )
