"""Stacking: estimators whose answers are the features of a last one."""

from __future__ import annotations

from typing import Any

from onnxtool.converters.sklearn.calibration import response_of
from onnxtool.converters.sklearn.nested import answers_of
from onnxtool.converters.sklearn.registration import Decision, classifier, regressor
from onnxtool.converters.sklearn.values import Frame, Value, as_given
from onnxtool.errors import ConversionError


def register() -> None:
    """Register this family."""
    classifier("ensemble.StackingClassifier", _classifier)
    regressor("ensemble.StackingRegressor", _regressor)


def _classifier(rows: Value, model: Any) -> Decision:
    if isinstance(model.classes_, list):
        raise ConversionError("StackingClassifier over several targets has no conversion to ONNX.")
    answers = answers_of(model.final_estimator_, _features(rows, model))
    # The last one was fitted on the positions of the classes.
    return Decision(answers.get("probabilities", answers.get("scores", answers["label"])), answers["label"])


def _regressor(rows: Value, model: Any) -> Value:
    return answers_of(model.final_estimator_, _features(rows, model))["prediction"]


def _features(rows: Value, model: Any) -> Value:
    """What each estimator says, side by side, and the rows themselves where they are passed through."""
    parts = [
        _feature(estimator, method, rows)
        for estimator, method in zip(model.estimators_, model.stack_method_, strict=True)
    ]
    if model.passthrough:
        if isinstance(rows, Frame) and any(one.spec.dtype == "string" for one in rows.inputs):
            raise ConversionError(
                f"{type(model).__name__} with passthrough=True gives text to its last estimator, which has no "
                "conversion to ONNX. Encode the text before, or fit with passthrough=False."
            )
        parts.append(rows)
    return parts[0] if len(parts) == 1 else parts[0].hstack(*parts[1:])


def _feature(model: Any, method: str, rows: Value) -> Value:
    if method == "predict":
        answers = answers_of(model, as_given(rows))
        return answers["prediction"] if "prediction" in answers else answers["label"].double().reshape(-1, 1)
    if method == "decision_function":
        return response_of(model, rows)[0]
    probabilities = answers_of(model, as_given(rows))["probabilities"]
    return probabilities.columns([1]) if len(model.classes_) == 2 else probabilities
