"""Latent Dirichlet allocation: each row's topics by fixed-point iteration, in a loop; skl2onnx 1.20 has none."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtool.converters.sklearn.loop import loop
from onnxtool.converters.sklearn.registration import transformer
from onnxtool.converters.sklearn.values import Value, normalised, repeated


def register() -> None:
    """Register this family."""
    transformer("decomposition.LatentDirichletAllocation", _topics)


def _topics(rows: Value, model: Any) -> Value:
    """Every row stops for itself, when its topics move by less than the tolerance on average."""
    words = np.asarray(model.exp_dirichlet_component_, dtype=float)
    dtype = np.float32 if rows.narrow and model.components_.dtype == np.float32 else np.float64
    prior, least = float(model.doc_topic_prior_), float(np.finfo(dtype).eps)

    def step(state: list[Value]) -> list[Value]:
        given, topics, weights, moving = state
        shares = weights @ words + least
        updated = weights * ((given / shares) @ words.T) + prior
        change = (updated - topics).apply("Abs").sum() / float(len(words))
        going = moving > 0.0
        still = going.where((change >= float(model.mean_change_tol)).double(), 0.0)
        return [given, going.where(updated, topics), going.where(_expectation(updated), weights), still]

    start = repeated(rows, np.ones(len(words)))
    state = [rows, start, _expectation(start), repeated(rows, np.ones(1))]
    return normalised(loop(int(model.max_doc_update_iter), state, step)[1])


def _expectation(topics: Value) -> Value:
    """The exponential of the expected logarithm under a Dirichlet distribution."""
    return (digamma(topics) - digamma(topics.sum())).apply("Exp")


def digamma(values: Value) -> Value:
    """The logarithmic derivative of the gamma function, for positive numbers.

    scikit-learn's approximation, with its error of up to 2e-9: up to six by the recurrence, then three terms.
    """
    taken = values * 0.0
    for _ in range(6):
        below = values < 6.0
        taken = taken + below.where(1.0 / values, 0.0)
        values = values + below.double()
    inverse = 1.0 / values
    square = inverse * inverse
    series = square * (1 / 12 - square * (1 / 120 - square * (1 / 252)))
    return values.apply("Log") - inverse * 0.5 - series - taken
