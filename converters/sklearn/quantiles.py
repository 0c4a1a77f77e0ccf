"""QuantileTransformer, for which skl2onnx 1.20 needs minutes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.converters.sklearn.registration import transformer
from onnxtool.converters.sklearn.values import Value
from onnxtool.errors import ConversionError


def register() -> None:
    """Register this family."""
    transformer("preprocessing.QuantileTransformer", _quantiles)


def _quantiles(rows: Value, model: Any) -> Value:
    """The mean of the interpolations from below and from above, which differ where quantiles repeat."""
    if model.output_distribution != "uniform":
        raise ConversionError(
            "QuantileTransformer(output_distribution='normal') needs the normal distribution's quantile function, "
            "which ONNX does not have. Take output_distribution='uniform'."
        )
    parts = []
    levels = np.asarray(model.references_, dtype=float)
    for place in range(model.n_features_in_):
        column = rows.columns([place])
        knots = np.asarray(model.quantiles_[:, place], dtype=float)
        up = _interpolated(column, knots, levels)
        down = _interpolated(-column, -knots[::-1], -levels[::-1])
        found = (up - down) * 0.5
        found = column.equals(float(knots[-1])).where(1.0, found)
        parts.append(column.equals(float(knots[0])).where(0.0, found))
    return parts[0].hstack(*parts[1:])


def _interpolated(column: Value, knots: NDArray[np.float64], levels: NDArray[np.float64]) -> Value:
    """As `numpy.interp` does: from the last knot not above the value, and level beyond the ends."""
    place = (column >= knots[1:-1]).whole().sum().reshape(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.where(np.diff(knots) > 0, np.diff(levels) / np.diff(knots), 0.0)
    start, level, slope = (
        column.of(values.reshape(-1, 1)).at(place) for values in (knots[:-1], levels[:-1], slopes)
    )
    inside = slope * (column - start) + level
    inside = (column >= float(knots[-1])).where(float(levels[-1]), inside)
    return (column <= float(knots[0])).where(_first(knots, levels), inside)


def _first(knots: NDArray[np.float64], levels: NDArray[np.float64]) -> float:
    """The level at the first knot: of the last of those that are equal to it."""
    return float(levels[np.flatnonzero(knots == knots[0])[-1]])
