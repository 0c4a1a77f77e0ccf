"""The answers of nearest neighbours where several are equally far: which of them count is for chance to say.

scikit-learn's guide: where two neighbours have identical distances and different targets, the result depends on the
order of the training data (https://scikit-learn.org/stable/modules/neighbors.html). It is the order in which a tree
visits its leaves, or in which threads finish.
"""

from __future__ import annotations

from itertools import combinations, islice
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import require
from onnxtool.models.signature import Tensors

_NEXT = 32
"""Neighbours that are looked at beyond those that count."""
_MOST = 100
"""Choices of neighbours that are tried for a row."""
_ROUNDING = 1e-9
"""Relative difference of two distances that are equal but for rounding."""


def alternatives(model: Any, rows: Any) -> list[Tensors]:
    """Every answer that another choice among equally far neighbours gives.

    Args:
        model: The estimator, or a pipeline whose last step may be one of neighbours.
        rows: What the model takes.

    Returns:
        Answers to all rows. Rows that have fewer choices than others repeat their last; those without equally far
        neighbours, or with more of them than can be tried, have their usual answer. Empty where the model is none of
        neighbours, or has several targets to classify.
    """
    neighbors = require("sklearn.neighbors", "sklearn")
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    classifies = isinstance(last, neighbors.KNeighborsClassifier)
    if not isinstance(last, neighbors.KNeighborsRegressor) and not classifies:
        return []
    if classifies and last.outputs_2d_:
        return []
    points = model[:-1].transform(rows) if hasattr(model, "steps") and len(model.steps) > 1 else rows
    counting = last.n_neighbors
    distances, places = last.kneighbors(points, min(last.n_samples_fit_, counting + _NEXT))
    choices = [_choices(row, counting) for row in distances]
    found = []
    for place in range(max(map(len, choices), default=0)):
        chosen = np.array([row[min(place, len(row) - 1)] for row in choices])
        weights = _weights(last, np.take_along_axis(distances, chosen, axis=1))
        nearest = last._y[np.take_along_axis(places, chosen, axis=1)]
        found.append(
            _classified(last, nearest, weights) if classifies else {"prediction": _averaged(nearest, weights)}
        )
    return found


def _choices(distances: NDArray[np.float64], counting: int) -> list[tuple[int, ...]]:
    """The places of the neighbours that may count, for one row, the usual ones first."""
    usual = tuple(range(counting))
    farthest = distances[counting - 1]
    tied = np.flatnonzero(np.isclose(distances, farthest, rtol=_ROUNDING, atol=0.0))
    closer, free = tuple(range(tied[0])), counting - int(tied[0])
    cut = tied[-1] == len(distances) - 1 and len(distances) == counting + _NEXT
    if cut or comb(len(tied), free) > _MOST:
        return [usual]
    return [(*closer, *some) for some in islice(combinations(tied.tolist(), free), _MOST)]


def _weights(model: Any, distances: NDArray[np.float64]) -> NDArray[np.float64]:
    if callable(model.weights):
        return np.asarray(model.weights(distances), dtype=np.float64)
    if model.weights == "distance":
        same = distances == 0
        with np.errstate(divide="ignore"):
            return np.where(same.any(axis=1, keepdims=True), same.astype(np.float64), 1 / distances)
    return np.ones_like(distances)


def _classified(model: Any, nearest: NDArray[Any], weights: NDArray[np.float64]) -> Tensors:
    votes = np.zeros((len(nearest), len(model.classes_)))
    np.add.at(votes, (np.arange(len(nearest))[:, None], nearest), weights)
    return {
        "label": model.classes_[votes.argmax(axis=1)],
        "probabilities": votes / votes.sum(axis=1, keepdims=True),
    }


def _averaged(nearest: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    if nearest.ndim == 3:
        weights = weights[..., None]
    return np.asarray((nearest * weights).sum(axis=1) / weights.sum(axis=1))
