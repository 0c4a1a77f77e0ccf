"""The raw columns of a fitted scikit-learn model: their dtypes, categories, ranges, thresholds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import SourceError
from onnxtool.models.rows.domain import Domain
from onnxtool.models.sklearn.contrib import ENCODERS, KNOWN_LIBRARIES, known_categories, library_of
from onnxtool.models.sklearn.lineage import VECTORIZERS, Feature, Features, is_missing, steps, transformed

MOST_LANDMARKS = 2000
"""Thresholds kept for a column: a large forest has more than made-up rows could visit."""


@dataclass
class Column:
    """One raw column.

    Attributes:
        categories: Values that an encoder knows, missing ones left out.
        takes_unknown: Whether a category never seen is allowed.
        missing: Whether a missing value is allowed.
        missing_text: What stands for missing text in the model (NaN or None), False if nothing does.
        as_objects: Whether an encoder knows numbers as Python objects, and takes no others.
        ranges: Mean and standard deviation as the steps know them, with a priority; the best is last.
        thresholds: Values at which trees split.
        words: The vocabulary of a vectorizer, for a column of text.
    """

    categories: tuple[Any, ...] = ()
    takes_unknown: bool = True
    missing: bool = False
    missing_text: float | Literal[False] | None = False
    as_objects: bool = False
    fill: Any = None
    ranges: list[tuple[int, float, float]] = field(default_factory=list)
    thresholds: list[NDArray[np.float64]] = field(default_factory=list)
    words: tuple[str, ...] = ()

    @property
    def dtype(self) -> str:
        """The dtype that the categories or the imputer imply, empty when nothing does.

        Truth values count as whole numbers, which is how encoders in ONNX take them.
        """
        if self.words:
            return "string"
        known = (*self.categories, *(() if self.fill is None else (self.fill,)))
        if not known:
            return ""
        if any(isinstance(value, str) for value in known):
            return "string"
        whole = all(isinstance(value, int | np.integer) for value in self.categories)
        if self.categories and whole and not self.missing:
            return "int64"
        return "float32"

    def domain(self) -> Domain:
        """The values to try: what is known, what is not, and what lies at the thresholds."""
        if self.words:
            return Domain(choices=self.words, words=12)
        if self.categories:
            return Domain(choices=self._choices())
        landmarks = np.unique(np.concatenate(self.thresholds)) if self.thresholds else np.empty(0)
        landmarks = landmarks[np.isfinite(landmarks)]  # a split on what is missing alone is at infinity
        if len(landmarks) > MOST_LANDMARKS:
            landmarks = landmarks[np.linspace(0, len(landmarks) - 1, MOST_LANDMARKS).astype(int)]
        center, spread = 0.0, 1.0
        if self.ranges:
            _, center, spread = max(self.ranges)
        elif len(landmarks):
            center, spread = float(landmarks.mean()), float(landmarks.std())
        if isinstance(self.fill, str):
            return Domain(choices=(self.fill, "other", ""))
        return Domain(
            center=center,
            spread=spread if np.isfinite(spread) and spread > 0 else max(abs(center) * 0.1, 1.0),
            landmarks=(landmarks,) if len(landmarks) else (),
            missing=0.05 if self.missing else 0.0,
        )

    def _choices(self) -> tuple[Any, ...]:
        choices = list(self.categories)
        if isinstance(choices[0], str):
            return (*choices, *(["never seen"] if self.takes_unknown else []), *([""] if self.missing else []))
        if not isinstance(choices[0], bool):
            choices += [max(choices) + 1] if self.takes_unknown else []
            choices += [np.nan] if self.missing and self.dtype == "float32" else []
        return tuple(choices)


def columns_of(model: Any, count: int) -> tuple[Column, ...]:
    """Collect what every fitted step knows of the raw columns.

    Args:
        model: A fitted estimator.
        count: Number of raw columns.
    """
    columns = tuple(Column() for _ in range(count))
    for step, features in steps(model, tuple(Feature(place) for place in range(count))):
        for witness in (
            _encoder,
            _vectorizer,
            _imputer,
            _ranges,
            _trees,
            _edges,
            _explainable,
            _other_encoder,
            _own_code,
            _takes_nan,
        ):
            witness(step, features, columns)
    return columns


def _encoder(step: Any, features: Features, columns: tuple[Column, ...]) -> None:
    categories = getattr(step, "categories_", None)
    if type(step).__name__ == "CategoricalNB":
        categories = [np.arange(float(count)) for count in step.n_categories_]
    if not isinstance(categories, list) or len(categories) != len(features):
        return
    for place, (feature, known) in enumerate(zip(features, categories, strict=True)):
        if feature is None or not feature.unchanged:
            continue
        column = columns[feature.column]
        present = [value for value in known.tolist() if not is_missing(value)]
        if known.dtype.kind not in "biuf":
            _refuse_other_kinds(step, place, list(known) if known.dtype.kind in "mM" else present)
        column.as_objects |= known.dtype == object and not any(isinstance(value, str) for value in present)
        absent = [value for value in known.tolist() if is_missing(value)]
        column.categories = tuple(dict.fromkeys((*column.categories, *present)))
        column.takes_unknown &= getattr(step, "handle_unknown", "error") != "error"
        if absent:
            column.missing = True
            column.missing_text = absent[0]


def _refuse_other_kinds(step: Any, place: int, present: list[Any]) -> None:
    """Refuse categories that are neither text nor numbers."""
    if all(isinstance(value, str | int | float | np.number) for value in present):
        return
    names = getattr(step, "feature_names_in_", None)
    raise SourceError(
        f"Column {str(place) if names is None else repr(str(names[place]))}: the {type(step).__name__} was fitted on "
        f"categories that are {type(present[0]).__name__}, such as {present[0]}, which ONNX cannot hold. Fit the "
        "model on that column as text, frame[column].astype(str), or as numbers, then convert it."
    )


def _vectorizer(step: Any, features: Features, columns: tuple[Column, ...]) -> None:
    if type(step).__name__ in VECTORIZERS and len(features) == 1 and features[0] is not None:
        columns[features[0].column].words = vocabulary(step)


def vocabulary(vectorizer: Any) -> tuple[str, ...]:
    """The words and phrases that a vectorizer knows, and one word that it does not."""
    return (*sorted(getattr(vectorizer, "vocabulary_", ())), "unheardof")


def _imputer(step: Any, features: Features, columns: tuple[Column, ...]) -> None:
    statistics = getattr(step, "statistics_", None)
    if statistics is None or len(statistics) != len(features):
        return
    for feature, value in zip(features, statistics, strict=True):
        if feature is None or not feature.unchanged:
            continue
        column = columns[feature.column]
        missing = getattr(step, "missing_values", np.nan)
        if is_missing(missing):
            column.missing = True
            column.missing_text = None if missing is None else np.nan
        if isinstance(value, str):
            column.fill = value
        elif not is_missing(value):
            column.ranges.append((0, float(value), abs(float(value)) / 2))


# Attributes that hold typical rows: training data, centres, quantiles.
_ROWS = (
    "quantiles_", "cluster_centers_", "centroids_", "support_vectors_", "means_", "theta_", "_fit_X", "X_train_",
)  # fmt: skip


def _ranges(step: Any, features: Features, columns: tuple[Column, ...]) -> None:
    center, spread, weight = _typical(step, len(features))
    if center is None or spread is None:
        return
    for feature, middle, width in zip(features, center, spread, strict=True):
        if feature is not None and np.isfinite(middle):
            columns[feature.column].ranges.append(
                (weight, float(feature.raw(middle)), float(abs(width / feature.scale)))
            )


def _typical(step: Any, width: int) -> tuple[Any, Any, int]:
    kind = type(step).__name__
    ones = np.ones(width)
    if kind in _SPREADS:
        center, spread = _SPREADS[kind](step, ones)
        return (center, spread, 3) if np.shape(center) == np.shape(spread) == (width,) else (None, None, 0)
    for name in _ROWS:
        rows = getattr(step, name, None)
        if isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.shape[1] == width and rows.dtype.kind == "f":
            return rows.mean(axis=0), rows.std(axis=0), 2
    mean = getattr(step, "mean_", None)
    if isinstance(mean, np.ndarray) and mean.shape == (width,):
        return mean, ones, 1
    return None, None, 0


_SPREADS: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "StandardScaler": lambda s, ones: (
        s.mean_ if s.mean_ is not None else 0 * ones,
        np.sqrt(s.var_) if s.var_ is not None else ones,
    ),
    "MinMaxScaler": lambda s, ones: ((s.data_min_ + s.data_max_) / 2, (s.data_max_ - s.data_min_) / 3),
    "MaxAbsScaler": lambda s, ones: (0 * ones, s.max_abs_ / 2),
    # 1.349 standard deviations lie between the quartiles of a normal distribution.
    "RobustScaler": lambda s, ones: (
        s.center_ if s.center_ is not None else 0 * ones,
        s.scale_ / 1.349 if s.scale_ is not None else ones,
    ),
}


def _trees(step: Any, features: Features, columns: tuple[Column, ...]) -> None:
    features = transformed(getattr(step, "_preprocessor", None), features)
    for places, thresholds in _splits(step):
        for place in np.unique(places):
            feature = features[place] if place < len(features) else None
            if feature is not None:
                columns[feature.column].thresholds.append(np.unique(feature.raw(thresholds[places == place])))


def _edges(step: Any, features: Features, columns: tuple[Column, ...]) -> None:
    """The edges of bins, and the knots of splines: elsewhere rows would all fall into the outer ones."""
    edges = getattr(step, "bin_edges_", None)
    if edges is None and hasattr(step, "bsplines_"):
        edges = [spline.t[step.degree : -step.degree or None] for spline in step.bsplines_]
    if edges is None or len(edges) != len(features):
        return
    for feature, found in zip(features, edges, strict=True):
        if feature is not None:
            values = np.unique(feature.raw(np.asarray(found, dtype=np.float64)))
            columns[feature.column].thresholds.append(values[np.isfinite(values)])


def _splits(step: Any) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    tree: Any = getattr(step, "tree_", None)
    if hasattr(tree, "children_left"):
        inner = tree.children_left >= 0
        return [(tree.feature[inner], tree.threshold[inner])]
    predictors = getattr(step, "_predictors", ())
    nodes = [predictor.nodes for group in predictors for predictor in group]
    found = []
    for array in nodes:
        inner = array[(array["is_leaf"] == 0) & (array["is_categorical"] == 0)]
        inner = inner[np.isfinite(inner["num_threshold"])]
        found.append((inner["feature_idx"].astype(int), inner["num_threshold"]))
    return found


def _explainable(step: Any, features: Features, columns: tuple[Column, ...]) -> None:
    """The cuts and the categories of an explainable boosting machine, which takes missing values."""
    levels = getattr(step, "bins_", None)
    if not hasattr(step, "term_features_") or not isinstance(levels, list):
        return
    for feature, level in zip(features, levels, strict=False):
        if feature is None:
            continue
        column = columns[feature.column]
        column.missing = True
        if not isinstance(level[0], dict):
            column.thresholds.append(np.unique(feature.raw(np.concatenate(level))))
        elif feature.unchanged:
            column.categories, column.missing_text = tuple(_as_numbers(list(level[0]))), None


def _other_encoder(step: Any, features: Features, columns: tuple[Column, ...]) -> None:
    """The categories of an encoder of another library, to which missing text is NaN."""
    if library_of(step) not in ENCODERS:
        return
    names = [str(name) for name in getattr(step, "feature_names_in_", None) or ()]
    for name, feature in zip(names, features, strict=False):
        if feature is None or not feature.unchanged:
            continue
        column = columns[feature.column]
        if column.missing_text is False:
            column.missing_text = np.nan
        if known := known_categories(step, name):
            column.categories = tuple(dict.fromkeys((*column.categories, *known)))
            column.missing |= getattr(step, "handle_missing", "raise") not in ("raise", "error")
        fill = (getattr(step, "imputer_dict_", None) or {}).get(name)
        if fill is not None:
            column.missing, column.fill = True, fill if isinstance(fill, str) else column.fill


def _own_code(step: Any, features: Features, columns: tuple[Column, ...]) -> None:
    """Code of the user's own is given data frames, in which missing text is NaN."""
    function = getattr(step, "func", None) if type(step).__name__ == "FunctionTransformer" else None
    if library_of(step) in KNOWN_LIBRARIES and function is None:
        return
    for feature in features:
        if feature is not None and feature.unchanged and columns[feature.column].missing_text is False:
            columns[feature.column].missing_text = np.nan


def _as_numbers(categories: list[str]) -> list[Any]:
    """Categories, which are kept as text, as the numbers that they all are, else as they are."""
    try:
        return [float(category) for category in categories]
    except ValueError:
        return categories


_BOOSTING = ("xgboost", "lightgbm", "catboost")


def _takes_nan(step: Any, features: Features, columns: tuple[Column, ...]) -> None:
    """Histogram gradient boosting and its like take missing values as they are."""
    if not hasattr(step, "_bin_mapper") and type(step).__module__.partition(".")[0] not in _BOOSTING:
        return
    for feature in features:
        if feature is not None:
            columns[feature.column].missing = True
