"""CalibratedClassifierCV: what each inner classifier says, turned into probabilities, and their mean."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from onnxtool.converters.sklearn.nested import answers_of
from onnxtool.converters.sklearn.registration import Decision, classifier
from onnxtool.converters.sklearn.values import Value, as_given, normalised, repeated, softmax
from onnxtool.converters.sklearn.wrappers import inner
from onnxtool.errors import ConversionError

_EPSILON = 1e-12  # what scikit-learn adds to a probability before its logarithm
_BY_LOGIT = {
    "GradientBoostingClassifier": ("loss", "log_loss"),
    "HistGradientBoostingClassifier": ("loss", "log_loss"),
    "LGBMClassifier": ("objective_", "binary"),
    "AdaBoostClassifier": ("estimator_weights_", None),
}
"""Classifiers whose decision function over two classes is the logit of the probability, and what says so."""
_BY_SOFTMAX = frozenset({"GradientBoostingClassifier", "HistGradientBoostingClassifier", "LGBMClassifier"})
"""Classifiers whose probabilities of several classes are the softmax of their decision function."""

Method = Literal["decision_function", "predict_proba"]


def register() -> None:
    """Register this family."""
    classifier("calibration.CalibratedClassifierCV", _calibrated)


def _calibrated(rows: Value, model: Any) -> Decision:
    parts = [_one(rows, part) for part in model.calibrated_classifiers_]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return Decision(total / float(len(parts)))


def _one(rows: Value, part: Any) -> Value:
    """The probabilities of one classifier and its calibrators, [batch, classes]."""
    count = len(part.classes)
    if part.method == "temperature":
        (calibrator,) = part.calibrators
        return softmax(_logits(part.estimator, rows) * float(calibrator.beta_))
    response, _ = response_of(part.estimator, rows)
    found = [_positive(response.columns([place]), calibrator) for place, calibrator in enumerate(part.calibrators)]
    if count == 2:
        return (-found[0] + 1.0).hstack(found[0])
    known = list(part.estimator.classes_)
    none = repeated(rows, np.zeros(1))
    scores = [found[known.index(name)] if name in known else none for name in part.classes]
    every = scores[0].hstack(*scores[1:])
    total = every.sum()
    return (total > 0.0).where(normalised(every), repeated(rows, np.full(count, 1 / count)))


def _logits(model: Any, rows: Value) -> Value:
    """What a softmax is taken of once it is scaled by the temperature, [batch, classes]."""
    count = len(model.classes_)
    response, method = response_of(model, rows)
    if method == "predict_proba":
        both = (-response + 1.0).hstack(response) if count == 2 else response
        return (both + _EPSILON).apply("Log")
    return (-response).hstack(response) if count == 2 else response


def _positive(response: Value, calibrator: Any) -> Value:
    """The probability of a class by Platt's sigmoid, or by isotonic regression; [batch, 1]."""
    if hasattr(calibrator, "a_"):
        return (response * -float(calibrator.a_) + -float(calibrator.b_)).apply("Sigmoid")
    return interpolated(response, calibrator)


def interpolated(values: Value, model: Any) -> Value:
    """What an IsotonicRegression says of values, [batch, 1]: linear between its thresholds, and constant beyond."""
    if model.out_of_bounds != "clip":
        raise ConversionError(
            f"IsotonicRegression with out_of_bounds={model.out_of_bounds!r} has no conversion here."
        )
    x, y = (np.asarray(given, dtype=np.float64) for given in (model.X_thresholds_, model.y_thresholds_))
    if len(x) == 1:
        return values * 0.0 + float(y[0])
    inside = values.apply("Max", x[0]).apply("Min", x[-1])
    place = (inside >= x[1:-1]).whole().sum().reshape(-1) if len(x) > 2 else (inside * 0.0).whole().reshape(-1)
    slopes = np.diff(y) / np.diff(x)
    start, low, slope = (values.of(array).at(place).reshape(-1, 1) for array in (x[:-1], y[:-1], slopes))
    return low + (inside - start) * slope


def response_of(model: Any, rows: Value) -> tuple[Value, Method]:
    """A classifier's decision function where it has one, else its probabilities.

    Args:
        model: A fitted classifier.
        rows: Its rows.

    Returns:
        [batch, classes], or [batch, 1] of the second class where there are two; and which of the two it is.

    Raises:
        ConversionError: it has a decision function that does not follow from what converts.
    """
    model = inner(model)
    if hasattr(model, "steps"):
        *before, last = (step for _, step in model.steps if step not in (None, "passthrough"))
        if before:
            (rows,) = answers_of(model[:-1], as_given(rows)).values()
        return response_of(last, rows)
    binary = len(model.classes_) == 2
    if hasattr(model, "decision_function"):
        if hasattr(model, "coef_") and not hasattr(model, "support_"):
            weights = np.asarray(model.coef_, dtype=np.float64).T
            return rows @ weights + np.asarray(model.intercept_, dtype=np.float64), "decision_function"
        answers = answers_of(model, as_given(rows))
        if "scores" in answers:
            return answers["scores"].reshape(0, -1), "decision_function"
        name, value = _BY_LOGIT.get(type(model).__name__, ("", None))
        if binary and name and value in (None, getattr(model, name)):
            positive = answers["probabilities"].columns([1])
            return (positive / (-positive + 1.0)).apply("Log"), "decision_function"
        if type(model).__name__ in _BY_SOFTMAX:
            return answers_of(model, as_given(rows), raw=True)["probabilities"], "decision_function"
        if type(model).__name__ == "AdaBoostClassifier":  # its decisions add up to 0
            logs, classes = answers["probabilities"].apply("Log"), len(model.classes_)
            return (logs - logs.sum() / float(classes)) * float(classes - 1), "decision_function"
        raise ConversionError(
            f"The decision function of {type(model).__name__} inside another estimator has no conversion to ONNX. "
            "Take a classifier that has probabilities alone, as a random forest, or one of two classes."
        )
    probabilities = answers_of(model, as_given(rows))["probabilities"]
    return probabilities.columns([1]) if binary else probabilities, "predict_proba"
