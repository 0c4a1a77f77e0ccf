"""Clusters by the nearest centre, and classes by the nearest centroid; skl2onnx 1.20 has only KMeans."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.converters.sklearn.kernels import manhattan
from onnxtool.converters.sklearn.registration import Decision, classifier, clusterer
from onnxtool.converters.sklearn.values import Value, repeated, softmax, squared_distances


def register() -> None:
    """Register this family."""
    clusterer("cluster.AffinityPropagation", lambda rows, model: (_nearest(rows, model.cluster_centers_), None))
    clusterer("cluster.MeanShift", lambda rows, model: (_nearest(rows, model.cluster_centers_), None))
    clusterer("cluster.Birch", _birch)
    clusterer("cluster.BisectingKMeans", _bisecting)
    classifier("neighbors.NearestCentroid", _centroids)


def _nearest(rows: Value, centres: NDArray[Any]) -> Value:
    return squared_distances(rows, centres).first_least()


def _birch(rows: Value, model: Any) -> tuple[Value, Value]:
    distances = squared_distances(rows, model.subcluster_centers_)
    places = distances.first_least()
    return places.of(np.asarray(model.subcluster_labels_)).at(places), distances.apply("Sqrt")


def _bisecting(rows: Value, model: Any) -> tuple[Value, Value]:
    """Down the tree of clusters, to the nearer of two centres at each fork."""

    def label(node: Any) -> Value:
        if node.left is None:
            return repeated(rows, np.array([node.label]))
        moved = getattr(model, "_X_mean", 0.0)
        distances = squared_distances(rows, np.vstack((node.left.center, node.right.center)) + moved)
        left, right = distances.columns([0]), distances.columns([1])
        return (right < left).where(label(node.right), label(node.left))

    return label(model._bisecting_tree), squared_distances(rows, model.cluster_centers_).apply("Sqrt")


def _centroids(rows: Value, model: Any) -> Decision:
    """The discriminant scores over normalised columns; the nearest centroid where priors are level."""
    spread = np.where(model.within_class_std_dev_ != 0, model.within_class_std_dev_, 1.0)
    far = _squared(rows / spread, model.centroids_ / spread, model.metric)
    scores = 2.0 * np.log(model.class_prior_) - far
    level = np.isclose(model.class_prior_, 1 / len(model.classes_)).all()
    place = _squared(rows, model.centroids_, model.metric).first_least() if level else scores.first_greatest()
    return Decision(softmax(scores), place)


def _squared(rows: Value, points: NDArray[Any], metric: str) -> Value:
    if metric == "euclidean":
        return squared_distances(rows, points)
    distances = manhattan(rows, points)
    return distances * distances
