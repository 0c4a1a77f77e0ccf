"""Rows on which an ONNX file and the estimator differ, by bare ONNX Runtime and the estimator alone.

It shares nothing with `onnxtool.validators`, so that a fault of theirs is no fault of the table's too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

RTOL, ATOL = 1e-4, 1e-5
"""Of numbers; labels are equal. The absolute one is of the largest number of the output, where that is above 1."""

_DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}
_ANSWERS: dict[str, Callable[[Any, Any], Any]] = {
    "label": lambda model, rows: model.predict(rows),
    "prediction": lambda model, rows: model.predict(rows),
    "probabilities": lambda model, rows: model.predict_proba(rows),
    "scores": lambda model, rows: model.decision_function(rows),
    "transformed": lambda model, rows: model.transform(rows),
    "distances": lambda model, rows: model.transform(rows),
}
"""Output of the ONNX model to what the estimator says."""


def rows_off(model: Any, rows: Any, path: Path) -> int:
    """How many rows have another label, or a number out of tolerance, in any output.

    Args:
        model: The fitted estimator.
        rows: A matrix, a data frame with the columns that it was fitted on, or texts.
        path: The ONNX file.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {entry.name: _feed(entry, rows) for entry in session.get_inputs()})
    off = np.zeros(len(rows), dtype=bool)
    for output, values in zip(session.get_outputs(), found, strict=True):
        off |= _differ(_answer(model, rows, output.name), np.asarray(values))
    return int(off.sum())


def _feed(entry: Any, rows: Any) -> NDArray[Any]:
    columns = getattr(rows, "columns", ())
    array = np.asarray(rows[entry.name])[:, None] if entry.name in columns else np.asarray(rows)
    if entry.type == "tensor(string)":
        array = np.array([str(value) for value in array.ravel()], dtype=object).reshape(array.shape)
    else:
        array = array.astype(_DTYPES[entry.type])
    return array.reshape(len(rows), *(size for size in entry.shape[1:]))


def _answer(model: Any, rows: Any, name: str) -> NDArray[Any]:
    kind, _, target = name.rpartition("_")
    if kind == "probabilities" and target.isdigit():
        return np.asarray(model.predict_proba(rows)[int(target)])
    answer = _ANSWERS[name](model, rows)
    return np.asarray(answer.toarray() if hasattr(answer, "toarray") else answer)


def _differ(truth: NDArray[Any], found: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows differ: all of them where the shapes do."""
    rows = len(truth)
    if truth.size != found.size:
        return np.ones(rows, dtype=bool)
    truth, found = truth.reshape(rows, -1), found.reshape(rows, -1)
    if truth.dtype.kind in "OUS":
        return np.asarray((truth.astype(str) != found.astype(str)).any(axis=1))
    if truth.dtype.kind in "iub":
        return np.asarray((truth.astype(np.int64) != found.astype(np.int64)).any(axis=1))
    truth, found = truth.astype(np.float64), found.astype(np.float64)
    finite = truth[np.isfinite(truth)]
    allowed = ATOL * max(1.0, float(np.abs(finite).max(initial=0.0))) + RTOL * np.abs(truth)
    same = (truth == found) | (np.isnan(truth) & np.isnan(found))
    with np.errstate(invalid="ignore"):
        return np.asarray((~same & ~(np.abs(found - truth) <= allowed)).any(axis=1))
