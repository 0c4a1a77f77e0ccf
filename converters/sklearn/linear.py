"""Linear classifiers that have a decision function only, and projections: a product and a sum in double precision.

skl2onnx 1.20 has no linear classifier for float64 rows, and none of the projections but PCA's kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.converters.sklearn.registration import (
    Decision,
    classifier,
    detector,
    regressor,
    transformer,
)
from onnxtool.converters.sklearn.values import Value
from onnxtool.errors import ConversionError


def register() -> None:
    """Register this family."""
    for path in ("svm.LinearSVC", "linear_model.RidgeClassifier", "linear_model.RidgeClassifierCV"):
        classifier(path, _classifier)
    for path, found in AFFINE.items():
        transformer(path, _affine(found))
    for path in ("cross_decomposition.CCA", "cross_decomposition.PLSCanonical"):
        regressor(path, _partial_least_squares)
    transformer("neural_network.BernoulliRBM", _hidden_units)
    detector("covariance.EllipticEnvelope", _envelope)


def by_sign(scores: Value) -> Decision:
    """The decision of scores: of two classes the second where the one score is above zero."""
    return Decision(scores, (scores > 0.0).whole())


def _classifier(rows: Value, model: Any) -> Decision:
    scores = rows @ np.atleast_2d(model.coef_).T + np.atleast_1d(np.asarray(model.intercept_, dtype=float))
    return by_sign(scores) if len(model.classes_) == 2 else Decision(scores)


Affine = Callable[[Any], tuple[Any, Any]]


def _factor_analysis(model: Any) -> tuple[Any, Any]:
    weighted = model.components_ / model.noise_variance_
    covariance = np.linalg.inv(np.eye(len(model.components_)) + weighted @ model.components_.T)
    return model.mean_, weighted.T @ covariance


def _sparse_components(model: Any) -> tuple[Any, Any]:
    """A ridge regression of the rows on the components, solved once and for all."""
    components = model.components_
    inverse = np.linalg.inv(components @ components.T + model.ridge_alpha * np.eye(len(components)))
    return model.mean_, components.T @ inverse


def _pooled(model: Any) -> tuple[Any, Any]:
    if model.pooling_func is not np.mean:
        raise ConversionError("FeatureAgglomeration with another pooling_func than numpy.mean has no conversion.")
    member = model.labels_[:, np.newaxis] == np.unique(model.labels_)
    return None, member / member.sum(axis=0)


AFFINE: dict[str, Affine] = {
    "decomposition.FactorAnalysis": _factor_analysis,
    "decomposition.FastICA": lambda m: (getattr(m, "mean_", None), m.components_.T),
    "decomposition.SparsePCA": _sparse_components,
    "decomposition.MiniBatchSparsePCA": _sparse_components,
    "cluster.FeatureAgglomeration": _pooled,
    "cross_decomposition.PLSSVD": lambda m: (m._x_mean, m.x_weights_ / m._x_std[:, np.newaxis]),
    "random_projection.SparseRandomProjection": lambda m: (None, _dense(m.components_).T),
}
"""What is taken from the rows, None for nothing, and the matrix with which they are multiplied."""


def _dense(matrix: Any) -> NDArray[Any]:
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix)


def _affine(found: Affine) -> Callable[[Value, Any], Value]:
    def convert(rows: Value, model: Any) -> Value:
        centre, factors = found(model)
        moved = rows if centre is None else rows - np.asarray(centre, dtype=float)
        return moved @ np.asarray(factors, dtype=float)

    return convert


def _partial_least_squares(rows: Value, model: Any) -> Value:
    return (rows - np.asarray(model._x_mean)) @ np.asarray(model.coef_).T + np.asarray(model.intercept_)


def _hidden_units(rows: Value, model: Any) -> Value:
    return (rows @ np.asarray(model.components_).T + np.asarray(model.intercept_hidden_)).apply("Sigmoid")


def _envelope(rows: Value, model: Any) -> tuple[Value, Value]:
    """Mahalanobis' distance, against the offset."""
    moved = rows - model.location_
    distance = ((moved @ model.get_precision()) * moved).sum()
    score = -distance - float(model.offset_)
    return score >= 0.0, score
