"""Gaussian mixtures and naive Bayes for float64 rows, on which skl2onnx 1.20 fails."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtool.converters.sklearn.registration import Decision, classifier, clusterer
from onnxtool.converters.sklearn.values import Value, softmax


def register() -> None:
    """Register this family."""
    clusterer("mixture.GaussianMixture", _mixture, only_double=True)
    clusterer("mixture.BayesianGaussianMixture", _mixture, only_double=True)
    classifier("naive_bayes.BernoulliNB", _bernoulli, only_double=True)
    classifier("naive_bayes.CategoricalNB", _categorical, only_double=True)


def _mixture(rows: Value, model: Any) -> tuple[Value, Value]:
    """The weighted densities' logarithms; apart from the distance they do not depend on the row."""
    squared = _squared_distances(rows, model)
    nothing = np.zeros((1, model.n_features_in_))
    at_origin = model._estimate_log_prob(nothing) + model._estimate_log_weights()
    constant = at_origin[0] + 0.5 * _numeric_distances(nothing, model)[0]
    scores = constant - squared * 0.5
    return scores.first_greatest(), softmax(scores)


def _factors(model: Any) -> list[Any]:
    """The matrix of each component that whitens its rows."""
    count, width = model.means_.shape
    factors = model.precisions_cholesky_
    if model.covariance_type == "tied":
        return [factors] * count
    if model.covariance_type == "full":
        return list(factors)
    if model.covariance_type == "diag":
        return [np.diag(one) for one in factors]
    return [np.eye(width) * one for one in factors]


def _squared_distances(rows: Value, model: Any) -> Value:
    found: list[Value] = []
    for mean, factor in zip(model.means_, _factors(model), strict=True):
        white = rows @ factor - mean @ factor
        found.append((white * white).sum())
    return found[0].hstack(*found[1:])


def _numeric_distances(rows: Any, model: Any) -> Any:
    white = [rows @ factor - mean @ factor for mean, factor in zip(model.means_, _factors(model), strict=True)]
    return np.stack([(one**2).sum(axis=1) for one in white], axis=1)


def _bernoulli(rows: Value, model: Any) -> Decision:
    if model.binarize is not None:
        rows = (rows > float(model.binarize)).double()
    absent = np.log(1 - np.exp(model.feature_log_prob_))
    scores = rows @ (model.feature_log_prob_ - absent).T + (model.class_log_prior_ + absent.sum(axis=1))
    return Decision(softmax(scores), scores.first_greatest())


def _categorical(rows: Value, model: Any) -> Decision:
    parts = []
    for place, logarithms in enumerate(model.feature_log_prob_):
        chosen = rows.columns([place]).whole().reshape(-1)
        parts.append(chosen.of(np.ascontiguousarray(logarithms.T)).at(chosen))
    scores = sum(parts[1:], parts[0]) + np.asarray(model.class_log_prior_)
    return Decision(softmax(scores), scores.first_greatest())
