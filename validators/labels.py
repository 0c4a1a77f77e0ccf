"""Accuracy drift: the quality of both models on labelled rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import DataError, UsageError, require
from onnxtool.models.data import UNNAMED, read_data
from onnxtool.models.signature import Role, Tensors
from onnxtool.reports.model import LabelDrift, Metric

ALLOWED_DRIFT = 1e-3
"""How much of a score (accuracy, F1, AUC, R²), or of an error relative to the source's, may be lost."""


def read_labels(labels: str, data: Tensors, data_path: str | Path | None) -> tuple[NDArray[Any], str]:
    """Find the labels: a column of the data, or a file of their own.

    Returns:
        One label a row, and where they came from.

    Raises:
        DataError: there is neither such a column nor such a file, or the file holds several columns.
    """
    if labels in data:
        return data[labels].reshape(len(data[labels]), -1)[:, 0], f"column {labels!r} of {data_path}"
    if not Path(labels).is_file():
        have = ", ".join(name or "one array" for name in data) or "none: give --data"
        raise DataError(f"--labels {labels}: neither a column of the data nor a file. Columns: {have}.")
    arrays = read_data(labels)
    if len(arrays) != 1:
        raise DataError(f"--labels {labels}: the file has columns {', '.join(arrays)}; keep the labels alone.")
    name, array = next(iter(arrays.items()))
    return array.reshape(len(array), -1)[:, 0], f"{labels}" + (f" ({name})" if name != UNNAMED else "")


def label_drift(
    labels: NDArray[Any], origin: str, *, source: Tensors, onnx: Tensors, roles: Mapping[str, Role]
) -> LabelDrift:
    """Measure both models on the labels, by scikit-learn's metrics.

    Args:
        labels: The truth, `[rows]`.
        origin: Where the labels came from.
        source: The source's outputs for the rows.
        onnx: The ONNX model's outputs for the rows, under the same names.
        roles: What each output means. Probabilities without a label number their classes from 0.

    Raises:
        DataError: the number of labels is not the number of rows.
        MissingExtraError: scikit-learn is not installed.
        UsageError: no output can be held against labels.
    """
    rows = len(next(iter(source.values())))
    if len(labels) != rows:
        raise DataError(f"{origin}: {len(labels)} labels for {rows} rows.")
    scorers = require("sklearn.metrics", "sklearn")
    label = next((name for name, role in roles.items() if role == "label"), None)
    probabilities = next((name for name, role in roles.items() if role == "probabilities"), None)
    task: Literal["classification", "regression"] = "regression"
    if label is not None or probabilities is not None:
        task = "classification"
        values = [_predicted(outputs, label, probabilities) for outputs in (source, onnx)]
        truth = labels.astype(str)
        scores = [
            ("accuracy", [float(scorers.accuracy_score(truth, value)) for value in values]),
            ("F1 (macro)", [float(scorers.f1_score(truth, value, average="macro")) for value in values]),
        ]
        metrics = [_score(name, *pair) for name, pair in scores]
    else:
        name = next(
            (name for name, value in source.items() if value.size == rows and value.dtype.kind == "f"), None
        )
        if name is None or labels.dtype.kind not in "biuf":
            raise UsageError("--labels needs a classifier's label or probabilities, or one number a row to score.")
        pair = [outputs[name].reshape(-1).astype(np.float64) for outputs in (source, onnx)]
        metrics = [
            _score("R²", *(float(scorers.r2_score(labels, value)) for value in pair)),
            _error("RMSE", *(float(scorers.root_mean_squared_error(labels, value)) for value in pair)),
            _error("MAE", *(float(scorers.mean_absolute_error(labels, value)) for value in pair)),
        ]
    return LabelDrift(
        labels=origin, task=task, rows=rows, metrics=metrics, passed=all(metric.passed for metric in metrics)
    )


def _predicted(outputs: Tensors, label: str | None, probabilities: str | None) -> NDArray[np.str_]:
    classes = outputs[label].reshape(-1) if label is not None else outputs[str(probabilities)].argmax(axis=1)
    return np.asarray(classes.astype(str))


def _score(name: str, source: float, onnx: float) -> Metric:
    """More is better: what is lost must stay within the allowance."""
    return _metric(name, source, onnx, ALLOWED_DRIFT, source - onnx)


def _error(name: str, source: float, onnx: float) -> Metric:
    """Less is better: the error may grow by the allowance, relative to itself."""
    return _metric(name, source, onnx, ALLOWED_DRIFT * source, onnx - source)


def _metric(name: str, source: float, onnx: float, allowed: float, lost: float) -> Metric:
    return Metric(
        name=name, source=source, onnx=onnx, difference=onnx - source, allowed=allowed, passed=lost <= allowed
    )
