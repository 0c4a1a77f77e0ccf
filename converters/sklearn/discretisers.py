"""Features made of one column each: bins, powers, splines, encodings, isotonic regression.

skl2onnx 1.20 has no splines and no isotonic regression, no one-hot bins, no target encoding of several classes,
fails on float64 rows for polynomials, power transforms and imputation, and knows no encoding of numbers that are
fractions or missing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.converters.sklearn.registration import Column, encoder, regressor, transformer
from onnxtool.converters.sklearn.values import Value
from onnxtool.errors import ConversionError, require
from onnxtool.models.sklearn.lineage import is_missing


def register() -> None:
    """Register this family."""
    transformer("preprocessing.KBinsDiscretizer", _bins)
    transformer("preprocessing.PolynomialFeatures", _polynomials)
    transformer("preprocessing.PowerTransformer", _powers, only_double=True)
    transformer("preprocessing.SplineTransformer", _splines)
    encoder("preprocessing.TargetEncoder", _target_encoding)
    encoder("preprocessing.OneHotEncoder", _encoded, _has_fractions_or_infrequent)
    encoder("preprocessing.OrdinalEncoder", _encoded, _has_missing)
    regressor("isotonic.IsotonicRegression", _isotonic)


def _has_fractions_or_infrequent(model: Any) -> bool:
    """Whether numbers are fractions or missing, or categories share a column: skl2onnx counts one for each."""
    if getattr(model, "_infrequent_enabled", False):
        return True
    numbers = [known for known in model.categories_ if not any(isinstance(one, str) for one in known)]
    return any(is_missing(one) or float(one) != int(one) for known in numbers for one in known)


def _has_missing(model: Any) -> bool:
    return any(is_missing(one) for known in model.categories_ for one in known)


def _encoded(columns: list[Column], model: Any) -> Value:
    """What the encoder itself makes of each category, and of a value that it does not know, looked up."""
    known = [list(categories) for categories in model.categories_]
    if getattr(model, "handle_unknown", "error") == "error":
        values = [[*categories, categories[0]] for categories in known]
    else:
        values = [[*categories, _unknown(categories)] for categories in known]
    rows = np.empty((max(map(len, values)), len(values)), dtype=object)
    for place, tried in enumerate(values):
        rows[:, place] = [*tried, *tried[:1] * (len(rows) - len(tried))]
    found = model.transform(rows)
    outputs = np.asarray(found.toarray() if hasattr(found, "toarray") else found, dtype=float)
    ends = np.cumsum(getattr(model, "_n_features_outs", [1] * len(values)))
    tables = np.split(outputs, ends[:-1], axis=1)
    parts = []
    for column, categories, table in zip(columns, model.categories_, tables, strict=True):
        places = column.positions(categories)
        parts.append(places.of(table[: len(categories) + 1]).at(places))
    return _joined(parts)


def _unknown(categories: list[Any]) -> Any:
    """A value of the categories' kind that is none of them."""
    present = [one for one in categories if not is_missing(one)]
    if any(isinstance(one, str) for one in present):
        return f"not {''.join(present)}"
    return max(present, default=0) + 1


def _joined(parts: list[Value]) -> Value:
    return parts[0].hstack(*parts[1:])


def _bins(rows: Value, model: Any) -> Value:
    """The bin of each value: how many inner edges are not above it."""
    parts = []
    for place, edges in enumerate(model.bin_edges_):
        inner = np.asarray(edges[1:-1], dtype=float)
        column = rows.columns([place])
        found = (column >= inner).double().sum() if len(inner) else column * 0.0
        if model.encode != "ordinal":
            found = found.equals(np.arange(float(model.n_bins_[place]))).double()
        parts.append(found)
    return _joined(parts)


def _polynomials(rows: Value, model: Any) -> Value:
    """Each product is a column times a product of one factor fewer, as scikit-learn multiplies."""
    width = model.n_features_in_
    if rows.narrow:
        rows = rows.hstack_array(np.zeros(0, dtype=np.float32))
    products = [tuple(np.repeat(np.arange(width), powers).tolist()) for powers in model.powers_]
    places: dict[tuple[int, ...], int] = {(place,): place for place in range(width)}
    block = rows
    for degree in range(2, max(map(len, products), default=0) + 1):
        level = sorted({product[len(product) - degree :] for product in products if len(product) >= degree})
        others = block.columns([places[product[1:]] for product in level])
        block = block.hstack(rows.columns([product[0] for product in level]) * others)
        places |= {product: len(places) + place for place, product in enumerate(level)}
    places[()] = len(places)
    one = block.columns([0]).apply("IsNaN").where(1.0, 1.0)
    return block.hstack(one).columns([places[product] for product in products])


def _powers(rows: Value, model: Any) -> Value:
    parts = []
    for place, power in enumerate(model.lambdas_):
        column = rows.columns([place])
        parts.append(_box_cox(column, power) if model.method == "box-cox" else _yeo_johnson(column, power))
    found = _joined(parts)
    if not model.standardize:
        return found
    return (found - np.asarray(model._scaler.mean_)) / np.asarray(model._scaler.scale_)


def _box_cox(values: Value, power: float) -> Value:
    logarithm = values.apply("Log")
    return ((logarithm * power).apply("Exp") - 1.0) / power if power else logarithm


def _yeo_johnson(values: Value, power: float) -> Value:
    positive = values >= 0.0
    up = _box_cox(positive.where(values, 0.0) + 1.0, power)
    down = -_box_cox(1.0 - positive.where(0.0, values), 2.0 - power)
    return positive.where(up, down)


def _splines(rows: Value, model: Any) -> Value:
    """On each interval between knots a polynomial for each spline, by Horner's rule."""
    if model.extrapolation == "error":
        raise ConversionError(
            "SplineTransformer(extrapolation='error') raises for rows beyond the knots, which ONNX cannot. "
            "Take another extrapolation."
        )
    parts = []
    for place, spline in enumerate(model.bsplines_):
        column = rows.columns([place])
        count = spline.c.shape[1]
        kept = count if model.include_bias else count - 1
        parts.append(_spline(column, spline, model.extrapolation).columns(np.arange(kept)))
    return _joined(parts)


def _spline(column: Value, spline: Any, extrapolation: str) -> Value:
    interpolate = require("scipy.interpolate", "sklearn")
    degree = spline.k
    low, high = float(spline.t[degree]), float(spline.t[len(spline.t) - degree - 1])
    inside = column
    if extrapolation == "periodic":
        period = high - low
        turns = ((column - low) / period).apply("Floor")
        inside = column - turns * period
    elif extrapolation in ("constant", "linear"):
        inside = column.apply("Max", low).apply("Min", high)
    span = slice(degree, len(spline.t) - degree - 1)
    starts = spline.t[span]
    coefficients = np.stack(
        [interpolate.PPoly.from_spline((spline.t, basis, degree)).c[:, span] for basis in spline.c.T], axis=2
    )
    interval = (inside >= starts[1:]).whole().sum() if len(starts) > 1 else (inside * 0.0).whole()
    interval = interval.reshape(-1)
    offset = inside - inside.of(starts.reshape(-1, 1)).at(interval)
    found = inside.of(coefficients[0]).at(interval)
    for coefficient in coefficients[1:]:
        found = found * offset + inside.of(coefficient).at(interval)
    if extrapolation != "linear":
        return found
    below = (column - low).apply("Min", 0.0) * np.asarray(spline(low, nu=1)).reshape(1, -1)
    above = (column - high).apply("Max", 0.0) * np.asarray(spline(high, nu=1)).reshape(1, -1)
    return found + below + above


def _target_encoding(columns: list[Column], model: Any) -> Value:
    """The mean of the target over each category, and over everything for one that is not known."""
    classes = len(model.classes_) if model.target_type_ == "multiclass" else 1
    means = np.atleast_1d(np.asarray(model.target_mean_, dtype=float))
    parts = []
    for place, (column, categories) in enumerate(zip(columns, model.categories_, strict=True)):
        encodings = np.stack(model.encodings_[place * classes : (place + 1) * classes], axis=1)
        found = column.positions(categories)
        parts.append(found.of(np.vstack([encodings, means])).at(found))
    return _joined(parts)


def _isotonic(rows: Value, model: Any) -> Value:
    """Straight lines between the thresholds."""
    if model.out_of_bounds == "raise":
        raise ConversionError(
            "IsotonicRegression(out_of_bounds='raise') raises for values beyond its thresholds, which ONNX cannot. "
            "Take 'clip' or 'nan'."
        )
    knots = np.asarray(model.X_thresholds_, dtype=float)
    levels: NDArray[Any] = np.asarray(model.y_thresholds_, dtype=float)
    if len(knots) == 1:
        found: Value = rows * 0.0 + float(levels[0])
    else:
        inside = rows.apply("Max", float(knots[0])).apply("Min", float(knots[-1]))
        place = (
            (inside > knots[1:-1]).whole().sum().reshape(-1)
            if len(knots) > 2
            else (rows * 0.0).whole().reshape(-1)
        )
        slopes = np.diff(levels) / np.diff(knots)
        start, level, slope = (
            rows.of(np.asarray(values).reshape(-1, 1)).at(place) for values in (knots[:-1], levels[:-1], slopes)
        )
        found = slope * (inside - start) + level
    if model.out_of_bounds == "clip":
        return found
    beyond = (rows < float(model.X_min_)).apply("Or", rows > float(model.X_max_))
    return beyond.where(np.nan, found)
