"""Filling and marking missing values; skl2onnx 1.20 fails on float64 rows and marks nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.converters.sklearn.registration import transformer
from onnxtool.converters.sklearn.values import Value, repeated
from onnxtool.errors import ConversionError
from onnxtool.models.sklearn.lineage import is_missing


def register() -> None:
    """Register this family."""
    transformer("impute.SimpleImputer", _simple, only_double=True, also_for=_marks_missing_numbers)
    transformer("impute.MissingIndicator", _indicator)
    transformer("impute.KNNImputer", _neighbours, only_double=True)


def _marks_missing_numbers(model: Any) -> bool:
    """Whether it adds columns that mark what is missing, which skl2onnx leaves out."""
    return model.indicator_ is not None and model.statistics_.dtype.kind == "f"


def missing(rows: Value, marker: Any) -> Value:
    """A mask of the missing values."""
    return rows.apply("IsNaN") if is_missing(marker) else rows.equals(float(marker))


def _with_indicator(filled: Value, rows: Value, model: Any) -> Value:
    """The filled columns, with the indicator of missing values where `add_indicator` is set."""
    return filled if model.indicator_ is None else filled.hstack(_indicator(rows, model.indicator_))


def _indicator(rows: Value, model: Any) -> Value:
    return missing(rows, model.missing_values).double().columns(model.features_)


def _simple(rows: Value, model: Any) -> Value:
    statistics = np.asarray(model.statistics_, dtype=float)
    kept = np.flatnonzero(~np.isnan(statistics))
    chosen = rows.columns(kept)
    filled = missing(chosen, model.missing_values).where(statistics[np.newaxis, kept], chosen)
    return _with_indicator(filled, rows, model)


def _neighbours(rows: Value, model: Any) -> Value:
    """The mean over the nearest training rows that know the column, by the columns that both know."""
    if model.metric != "nan_euclidean" or model.weights not in ("uniform", "distance"):
        raise ConversionError("KNNImputer with a metric or weights of one's own has no conversion to ONNX.")
    training = np.asarray(model._fit_X, dtype=float)
    unknown = model._mask_fit_X
    gap = missing(rows, model.missing_values)
    distances = _distances(rows, gap, training, unknown)
    parts = []
    for place in np.flatnonzero(model._valid_mask).reshape(-1, 1):
        donors = np.flatnonzero(~unknown[:, place])
        filled = _mean_of_nearest(distances.columns(donors), training[donors, place], model)
        parts.append(gap.columns(place).where(filled, rows.columns(place)))
    filled = parts[0].hstack(*parts[1:])
    return _with_indicator(filled, rows, model)


def _distances(rows: Value, gap: Value, training: NDArray[Any], unknown: NDArray[Any]) -> Value:
    """Euclidean distances, scaled up for columns that are missing; infinite where the two share none."""
    filled, known = gap.where(0.0, rows), gap.where(0.0, 1.0)
    points, there = np.where(unknown, 0.0, training), (~unknown).astype(float)
    squared = (filled * filled) @ there.T - (filled @ points.T) * 2.0 + known @ (points**2).T
    shared = known @ there.T
    width = float(training.shape[1])
    distance = (squared.apply("Max", 0.0) / shared.apply("Max", 1.0) * width).apply("Sqrt")
    return (shared > 0.0).where(distance, np.inf)


def _mean_of_nearest(distances: Value, values: Any, model: Any) -> Value:
    count = min(model.n_neighbors, len(values))
    negative, places = (-distances).greatest(count)
    near = -negative
    usable = near < np.inf
    weights = usable.where(1.0, 0.0)
    if model.weights == "distance":  # rows at the same place count alone
        same = near.equals(0.0).double()
        weights = (same.sum() > 0.0).where(same, usable.where(1.0 / (near.equals(0.0)).where(1.0, near), 0.0))
    total = weights.sum()
    mean = (weights * near.of(values).at(places)).sum() / total.apply("Max", 1e-300)
    return (total > 0.0).where(mean, repeated(near, np.array([values.mean()])))
