"""Classifiers of several classes that are made of classifiers of two."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtool.converters.sklearn.calibration import response_of
from onnxtool.converters.sklearn.nested import answers_of
from onnxtool.converters.sklearn.registration import Decision, classifier
from onnxtool.converters.sklearn.values import Value, as_given, normalised, repeated, squared_distances
from onnxtool.errors import ConversionError


def register() -> None:
    """Register this family."""
    classifier("multiclass.OneVsRestClassifier", _one_vs_rest)
    classifier("multiclass.OneVsOneClassifier", _one_vs_one)
    classifier("multiclass.OutputCodeClassifier", _output_code)


def _one_vs_rest(rows: Value, model: Any) -> Decision:
    """The class whose classifier is surest; of equals the last, as scikit-learn takes it."""
    if model.multilabel_:
        raise ConversionError("OneVsRestClassifier over several labels a row has no conversion to ONNX.")
    scores = _side_by_side([_score(one, rows) for one in model.estimators_])
    count = len(model.classes_)
    if hasattr(model, "predict_proba"):
        positive = _side_by_side([_probability(one, rows) for one in model.estimators_])
        confidence = (-positive + 1.0).hstack(positive) if count == 2 else _normalised(positive)
    else:
        confidence = scores
    if count == 2:
        return Decision(confidence, (scores > _threshold(model.estimators_[0])).whole())
    last = -scores.columns(range(count - 1, -1, -1)).first_greatest() + (count - 1)
    return Decision(confidence, last)


def _one_vs_one(rows: Value, model: Any) -> Decision:
    """Votes, and the sum of confidences where they are equal; `sklearn.utils.multiclass._ovr_decision_function`."""
    count = len(model.classes_)
    parts = [
        rows if of is None else rows.columns(of)
        for of in model.pairwise_indices_ or [None] * len(model.estimators_)
    ]
    pairs = [(first, second) for first in range(count) for second in range(first + 1, count)]
    # Of each pair, a vote for the second is one against the first, and so is confidence.
    chosen, against = np.zeros((len(pairs), count)), np.zeros((len(pairs), count))
    for place, (first, second) in enumerate(pairs):
        chosen[place, [first, second]] = -1, 1
        against[place, first] = 1
    estimators = list(zip(model.estimators_, parts, strict=True))
    votes = _side_by_side([_vote(one, part) for one, part in estimators]) @ chosen + against.sum(axis=0)
    sums = _side_by_side([_score(one, part) for one, part in estimators]) @ chosen
    scores = votes + sums / ((sums.apply("Abs") + 1.0) * 3.0)
    if count == 2:
        positive = scores.columns([1])
        return Decision(positive, (positive > _threshold(model.estimators_[0])).whole())
    return Decision(scores)


def _output_code(rows: Value, model: Any) -> Decision:
    """The class whose code is nearest to what the classifiers of two say."""
    answers = _side_by_side([_score(one, rows) for one in model.estimators_])
    return Decision(-squared_distances(answers, np.asarray(model.code_book_)))


def _side_by_side(parts: list[Value]) -> Value:
    return parts[0] if len(parts) == 1 else parts[0].hstack(*parts[1:])


def _normalised(positive: Value) -> Value:
    """Each row divided by its sum, unless that is 0."""
    total = positive.sum()
    return (total > 0.0).where(normalised(positive), positive)


def _is_constant(model: Any) -> bool:
    """Whether all training rows were on one side of a split into two."""
    return type(model).__name__ == "_ConstantPredictor"


def _score(model: Any, rows: Value) -> Value:
    """The decision function where there is one, else the probability of the second class, [batch, 1]."""
    if _is_constant(model):
        return repeated(rows, np.asarray(model.y_, dtype=float))
    return response_of(model, rows)[0]


def _probability(model: Any, rows: Value) -> Value:
    if _is_constant(model):
        return repeated(rows, np.asarray(model.y_, dtype=float))
    return answers_of(model, as_given(rows))["probabilities"].columns([1])


def _vote(model: Any, rows: Value) -> Value:
    """Which of the two classes it takes, [batch, 1]."""
    if _is_constant(model):
        return repeated(rows, np.asarray(model.y_, dtype=float))
    return answers_of(model, as_given(rows))["label"].double().reshape(-1, 1)


def _threshold(model: Any) -> float:
    return 0.0 if hasattr(model, "decision_function") else 0.5
