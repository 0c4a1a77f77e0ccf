"""Trace the features of each step of a fitted scikit-learn model to the raw columns.

A pipeline's tree splits on "feature 7", which is the third column of a data frame, less a mean and divided by
a scale. Following columns through the fitted steps shows what the model knows of its raw inputs: categories,
ranges, thresholds. What cannot be followed exactly is left out, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature that is `scale * raw + offset` of one raw column.

    Attributes:
        column: Position of the raw column.
        scale: Factor, not zero.
        offset: Summand.
    """

    column: int
    scale: float = 1.0
    offset: float = 0.0

    @property
    def unchanged(self) -> bool:
        """Whether it is the raw value itself."""
        return self.scale == 1.0 and self.offset == 0.0

    def raw(self, value: Any) -> Any:
        """The raw value, or values, at which the feature has this value."""
        return (value - self.offset) / self.scale


Features: TypeAlias = tuple[Feature | None, ...]
"""What a step sees, in its order; None for a feature that is no function of one column."""


def steps(model: Any, features: Features) -> Iterator[tuple[Any, Features]]:
    """Every fitted step of a model, innermost first, with the features that it sees."""
    for step, seen in _inner(model, features):
        yield from steps(step, seen)
    yield model, features


def _inner(model: Any, features: Features) -> Iterator[tuple[Any, Features]]:
    """The fitted estimators directly inside an estimator."""
    if hasattr(model, "steps"):
        for _, step in model.steps:
            if hasattr(step, "fit"):
                yield step, features
                features = transformed(step, features)
        return
    if hasattr(model, "transformers_"):
        for name, step, _ in model.transformers_:
            if hasattr(step, "fit"):
                yield step, _picked(features, model._transformer_to_input_indices[name])
        return
    if hasattr(model, "transformer_list"):
        for _, step in model.transformer_list:
            if hasattr(step, "fit"):
                yield step, features
        return
    preprocessor = getattr(model, "_preprocessor", None)  # histogram gradient boosting with categories
    if hasattr(preprocessor, "fit"):
        yield preprocessor, features
    subsets = getattr(model, "estimators_features_", None)  # bagging gives each estimator a share of the columns
    for position, step in enumerate(_fitted_steps(model)):
        yield step, features if subsets is None else _picked(features, subsets[position])


_ESTIMATOR_ATTRIBUTES = ("best_estimator_", "estimator_", "regressor_", "calibrated_classifiers_", "estimators_")


def _fitted_steps(model: Any) -> Iterator[Any]:
    # `estimator_` may also be the template that the fitted `estimators_` were cloned from.
    for name in _ESTIMATOR_ATTRIBUTES if not hasattr(model, "estimators_") else ("estimators_",):
        found = getattr(model, name, None)
        found = [found] if hasattr(found, "fit") else found
        for part in found.ravel() if isinstance(found, np.ndarray) else found or ():
            inside = getattr(part, "estimator", None) if name == "calibrated_classifiers_" else part
            if hasattr(inside, "fit"):
                yield inside
    # RFE and SelectFromModel keep theirs under the same name, but it sees the selected features: not followed.


def transformed(step: Any, features: Features) -> Features:
    """The features that a fitted transformer gives, empty when it is not known how they come about."""
    if step in (None, "passthrough"):
        return features
    kind = type(step).__name__
    if hasattr(step, "steps"):
        for _, inner in step.steps:
            features = transformed(inner, features)
        return features
    if hasattr(step, "transformers_"):
        return _side_by_side(step, features)
    if kind in _SCALERS:
        return _scaled(features, *_SCALERS[kind](step))
    if kind == "SimpleImputer" and step.indicator_ is None:
        return _kept(features, [not is_missing(value) for value in step.statistics_])
    if hasattr(step, "get_support"):
        return _kept(features, step.get_support())
    if kind == "FunctionTransformer" and (step.func is None or _only_checks(step.func)):
        return features
    return ()


def _only_checks(function: Any) -> bool:
    """Histogram gradient boosting passes its numbers through `partial(check_array, ...)`."""
    return getattr(getattr(function, "func", None), "__name__", "") == "check_array"


# What each scaler multiplies with and adds, None for nothing.
_SCALERS: dict[str, Any] = {
    "StandardScaler": lambda s: _shifted(s.scale_, s.mean_ if s.with_mean else None),
    "RobustScaler": lambda s: _shifted(s.scale_, s.center_),
    "MaxAbsScaler": lambda s: _shifted(s.scale_, None),
    "MinMaxScaler": lambda s: (s.scale_, s.min_),
}


def _shifted(scale: Any, center: Any) -> tuple[Any, Any]:
    factor = None if scale is None else 1.0 / np.asarray(scale)
    if center is None:
        return factor, None
    return factor, -np.asarray(center) * (1.0 if factor is None else factor)


def _scaled(features: Features, factors: Any, summands: Any) -> Features:
    count = len(features)
    factors = np.ones(count) if factors is None else factors
    summands = np.zeros(count) if summands is None else summands
    if not len(factors) == len(summands) == count:
        return ()
    scaled: list[Feature | None] = []
    for feature, factor, summand in zip(features, map(float, factors), map(float, summands), strict=True):
        if feature is None or not factor:
            scaled.append(None)
        else:
            scaled.append(Feature(feature.column, feature.scale * factor, feature.offset * factor + summand))
    return tuple(scaled)


def _side_by_side(step: Any, features: Features) -> Features:
    width = max((part.stop for part in step.output_indices_.values()), default=0)
    result: list[Feature | None] = [None] * width
    for name, inner, _ in step.transformers_:
        place = step.output_indices_[name]
        if isinstance(inner, str) and inner == "drop":
            continue
        block = transformed(inner, _picked(features, step._transformer_to_input_indices[name]))
        if len(block) == place.stop - place.start:
            result[place] = block
    return tuple(result)


def _picked(features: Features, positions: Any) -> Features:
    return tuple(features[position] if position < len(features) else None for position in positions)


def _kept(features: Features, mask: Any) -> Features:
    if len(mask) != len(features):
        return ()
    return tuple(feature for feature, keep in zip(features, mask, strict=True) if keep)


def is_missing(value: Any) -> bool:
    """Whether a value of a fitted attribute stands for a missing one: None or NaN."""
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


VECTORIZERS = frozenset({"CountVectorizer", "TfidfVectorizer", "HashingVectorizer"})
"""Steps that read text."""


def sparse_readers(model: Any) -> Iterator[Any]:
    """The steps of pipelines inside a model that are given sparse rows."""
    for step, _ in steps(model, ()):
        sparse = False
        for _, inner in getattr(step, "steps", ()):
            if sparse:
                yield _unwrapped(inner)
            sparse = _gives_sparse(inner, sparse)


def _gives_sparse(step: Any, given: bool) -> bool:
    kind = type(step).__name__
    if hasattr(step, "sparse_output_"):  # of a ColumnTransformer, decided at training
        return bool(step.sparse_output_)
    if kind in ("OneHotEncoder", "TargetEncoder", "SplineTransformer"):
        return bool(getattr(step, "sparse_output", False))
    if hasattr(step, "steps"):
        for _, inner in step.steps:
            given = _gives_sparse(inner, given)
        return given
    if hasattr(step, "transformer_list"):
        return any(_gives_sparse(inner, given) for _, inner in step.transformer_list)
    keeps = kind in _SCALERS or hasattr(step, "get_support") or step in (None, "passthrough")
    return kind in VECTORIZERS or kind == "TfidfTransformer" or (keeps and given)


def _unwrapped(step: Any) -> Any:
    return step.best_estimator_ if hasattr(step, "best_estimator_") else step
