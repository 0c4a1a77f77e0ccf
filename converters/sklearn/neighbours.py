"""Neighbours within a radius, and embeddings that place a row by its neighbours; skl2onnx 1.20 fails on these."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtool.converters.sklearn.kernels import centred_components, manhattan
from onnxtool.converters.sklearn.registration import Decision, classifier, regressor, transformer
from onnxtool.converters.sklearn.solve import solve
from onnxtool.converters.sklearn.values import Value, normalised, squared_distances
from onnxtool.errors import ConversionError


def register() -> None:
    """Register this family."""
    regressor("neighbors.RadiusNeighborsRegressor", _mean_within)
    classifier("neighbors.RadiusNeighborsClassifier", _votes_within)
    transformer("neighbors.RadiusNeighborsTransformer", _graph_within)
    transformer("manifold.Isomap", _isomap)
    transformer("manifold.LocallyLinearEmbedding", _locally_linear)


def _distances(rows: Value, model: Any) -> Value:
    """Distances to the training rows, [batch, training rows]."""
    name, power = model.effective_metric_, model.effective_metric_params_.get("p", 2)
    points = np.asarray(model._fit_X, dtype=float)
    if name == "euclidean" or (name == "minkowski" and power == 2):
        return squared_distances(rows, points).apply("Sqrt")
    if name in ("manhattan", "cityblock"):
        return manhattan(rows, points)
    raise ConversionError(f"{type(model).__name__} with the metric {name!r} has no conversion to ONNX.")


def _weights_within(rows: Value, model: Any) -> Value:
    """The weight of each training row: zero beyond the radius."""
    distances = _distances(rows, model)
    within = distances <= float(model.radius)
    if model.weights == "uniform":
        return within.double()
    if model.weights != "distance":
        raise ConversionError(f"{type(model).__name__} with weights of one's own has no conversion to ONNX.")
    same = distances.equals(0.0)
    inverse = within.where(1.0 / same.where(1.0, distances), 0.0)
    return (same.double().sum() > 0.0).where(same.double(), inverse)


def _mean_within(rows: Value, model: Any) -> Value:
    weights = _weights_within(rows, model)
    return normalised(weights) @ np.asarray(model._y, dtype=float).reshape(len(model._fit_X), -1)


def _votes_within(rows: Value, model: Any) -> Decision:
    """The shares of the classes; rows without neighbours are outliers, of which ONNX cannot complain."""
    if model.outputs_2d_:
        raise ConversionError("RadiusNeighborsClassifier with several targets has no conversion to ONNX.")
    member = np.asarray(model._y).reshape(-1, 1) == np.arange(len(model.classes_))
    votes = _weights_within(rows, model) @ member.astype(float)
    return Decision(normalised(votes), votes.first_greatest())


def _graph_within(rows: Value, model: Any) -> Value:
    distances = _distances(rows, model)
    within = distances <= float(model.radius)
    return within.where(distances if model.mode == "distance" else 1.0, 0.0)


def _isomap(rows: Value, model: Any) -> Value:
    """The shortest way to each training row, through each neighbour of the row."""
    if model.n_neighbors is None:
        raise ConversionError("Isomap by radius has no conversion to ONNX. Take n_neighbors.")
    near, places = (-_distances(rows, model.nbrs_)).greatest(model.n_neighbors)
    between = near.of(np.asarray(model.dist_matrix_, dtype=float))
    ways = [
        between.at(places.columns([rank]).reshape(-1)) - near.columns([rank]) for rank in range(model.n_neighbors)
    ]
    shortest = ways[0].apply("Min", *ways[1:])
    return centred_components(shortest * shortest * -0.5, model.kernel_pca_)


def _locally_linear(rows: Value, model: Any) -> Value:
    """The weights that best make the row of its neighbours, applied to the neighbours' places."""
    count = model.n_neighbors
    places = (-_distances(rows, model.nbrs_)).nearest(count)
    around = places.of(np.asarray(model.nbrs_._fit_X, dtype=float)).at(places)
    differences = around - rows.apply("Unsqueeze", np.array([1]))
    products = differences @ differences.apply("Transpose", perm=[0, 2, 1])
    trace = (products * np.eye(count)).sum(2).sum(1)
    ridge = (trace > 0.0).where(trace * float(model.reg), float(model.reg))
    weights = normalised(solve(products + ridge * np.eye(count), count))
    placed = places.of(np.asarray(model.embedding_, dtype=float)).at(places)
    return (weights * placed).sum().reshape(0, -1)
