"""Estimators around one other, or a chain of others: thresholds, transformed targets, self-training, chains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from onnxtool.converters.sklearn.nested import answers_of
from onnxtool.converters.sklearn.registration import Decision, classifier, multilabel, regressor, targets
from onnxtool.converters.sklearn.values import Value, as_given
from onnxtool.errors import ConversionError


def register() -> None:
    """Register this family."""
    multilabel("multioutput.ClassifierChain", _classifier_chain)
    regressor("multioutput.RegressorChain", _regressor_chain)
    targets("multioutput.MultiOutputClassifier", _several_labels)
    regressor("multioutput.MultiOutputRegressor", _several_numbers)
    regressor("compose.TransformedTargetRegressor", _transformed_target)
    for name in ("FixedThresholdClassifier", "TunedThresholdClassifierCV"):
        classifier(f"model_selection.{name}", _threshold)
    classifier("semi_supervised.SelfTrainingClassifier", _self_training)


def _positive(answers: dict[str, Value]) -> Value:
    """A binary classifier's score or probability of its second class, [batch, 1]."""
    return answers["scores"] if "scores" in answers else answers["probabilities"].columns([1])


def _chain(rows: Value, model: Any, feature: Callable[[dict[str, Value]], Value]) -> list[dict[str, Value]]:
    """The answers of each link, from the rows and from the answers of the links before, in the chain's order."""
    seen, found = as_given(rows), []
    for link in model.estimators_:
        found.append(answers_of(link, seen))
        seen = rows.hstack(*(feature(answers) for answers in found))
    return found


def _in_order(parts: list[Value], model: Any) -> Value:
    places = np.argsort(model.order_).tolist()
    ordered: list[Value] = [parts[place] for place in places]
    return ordered[0].hstack(*ordered[1:])


def _label(answers: dict[str, Value]) -> Value:
    return answers["label"].double().reshape(-1, 1)


def _classifier_chain(rows: Value, model: Any) -> tuple[Value, Value]:
    if any(len(classes) != 2 for classes in model.classes_):
        raise ConversionError("ClassifierChain over more than two classes a target has no conversion to ONNX.")
    answers = _chain(rows, model, _label if model.chain_method_ == "predict" else _positive)
    label = _in_order([_label(one) for one in answers], model).whole()
    probable = all("probabilities" in one for one in answers)
    return label, _in_order([_positive(one) for one in answers], model) if probable else label.double()


def _regressor_chain(rows: Value, model: Any) -> Value:
    answers = _chain(rows, model, lambda one: one["prediction"])
    return _in_order([one["prediction"] for one in answers], model)


def _several_numbers(rows: Value, model: Any) -> Value:
    parts = [answers_of(one, as_given(rows))["prediction"] for one in model.estimators_]
    return parts[0] if len(parts) == 1 else parts[0].hstack(*parts[1:])


def _several_labels(rows: Value, model: Any) -> list[tuple[Value, Value | None]]:
    answers = [answers_of(one, as_given(rows)) for one in model.estimators_]
    return [(one["label"], one.get("probabilities")) for one in answers]


def _transformed_target(rows: Value, model: Any) -> Value:
    answers = answers_of(model.regressor_, as_given(rows))["prediction"]
    return _undone(answers, model.transformer_)


UNDO: dict[str, Callable[[Value, Any], Value]] = {
    "StandardScaler": lambda y, s: _moved(y, s.scale_, s.mean_ if s.with_mean else None),
    "RobustScaler": lambda y, s: _moved(y, s.scale_, s.center_),
    "MaxAbsScaler": lambda y, s: _moved(y, s.scale_, None),
    "MinMaxScaler": lambda y, s: (y - np.asarray(s.min_)) / np.asarray(s.scale_),
}
"""How the values that a transformer made are turned back."""

FUNCTIONS: dict[Any, Callable[[Value], Value]] = {
    None: lambda y: y,
    np.exp: lambda y: y.apply("Exp"),
    np.expm1: lambda y: y.apply("Exp") - 1.0,
    np.log: lambda y: y.apply("Log"),
    np.log1p: lambda y: (y + 1.0).apply("Log"),
    np.sqrt: lambda y: y.apply("Sqrt"),
    np.square: lambda y: y * y,
}
"""NumPy's functions as ONNX says them."""


def _moved(values: Value, scale: Any, centre: Any) -> Value:
    values = values if scale is None else values * np.asarray(scale)
    return values if centre is None else values + np.asarray(centre)


def _undone(values: Value, step: Any) -> Value:
    kind = type(step).__name__
    if kind == "FunctionTransformer" and step.inverse_func in FUNCTIONS:
        return FUNCTIONS[step.inverse_func](values)
    if kind in UNDO:
        return UNDO[kind](values, step)
    shown = getattr(getattr(step, "inverse_func", None), "__name__", kind)
    raise ConversionError(
        f"TransformedTargetRegressor with the inverse of {shown} has no conversion to ONNX. Known are the scalers, "
        f"and {', '.join(function.__name__ for function in FUNCTIONS if function)}."
    )


def _threshold(rows: Value, model: Any) -> Decision:
    """Positive from a threshold on."""
    inner = getattr(model, "estimator_", None) or model.estimator
    answers = answers_of(inner, as_given(rows))
    auto = 0.5 if "probabilities" in answers else 0.0
    given = getattr(model, "best_threshold_", getattr(model, "threshold", "auto"))
    threshold = auto if given == "auto" else float(given)
    method = model._get_response_method()
    methods = [method] if isinstance(method, str) else list(method)
    if methods[0] not in ("predict_proba", "decision_function"):
        raise ConversionError(f"{type(model).__name__} over {methods[0]} has no conversion to ONNX.")
    if (methods[0] == "decision_function") != ("scores" in answers) and len(methods) == 1:
        raise ConversionError(
            f"{type(model).__name__} over {methods[0]} of this estimator has no conversion to ONNX."
        )
    position = getattr(model, "pos_label", None)
    if position is not None and position != model.classes_[1]:
        raise ConversionError(
            f"{type(model).__name__} with the first class as pos_label has no conversion to ONNX."
        )
    place = (_positive(answers) >= threshold).whole()
    return Decision(answers.get("probabilities", answers.get("scores", _positive(answers))), place)


def _self_training(rows: Value, model: Any) -> Decision:
    return Decision(answers_of(model.estimator_, as_given(rows))["probabilities"])
