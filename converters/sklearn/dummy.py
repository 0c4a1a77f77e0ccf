"""Baselines with the same prediction for every row, which skl2onnx 1.20 does not have."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtool.converters.sklearn.registration import Decision, classifier, regressor
from onnxtool.converters.sklearn.values import Value, repeated
from onnxtool.errors import ConversionError


def register() -> None:
    """Register this family."""
    classifier("dummy.DummyClassifier", _classifier)
    regressor("dummy.DummyRegressor", lambda rows, model: repeated(rows, np.ravel(model.constant_).astype(float)))


def _classifier(rows: Value, model: Any) -> Decision:
    if model.strategy in ("stratified", "uniform"):
        raise ConversionError(f"DummyClassifier({model.strategy!r}) answers at random, which ONNX cannot repeat.")
    if model.n_outputs_ > 1:
        raise ConversionError("DummyClassifier with several targets has no conversion to ONNX.")
    nothing = np.zeros((1, 1))
    place = np.flatnonzero(model.classes_ == model.predict(nothing)[0])
    return Decision(repeated(rows, model.predict_proba(nothing)[0]), repeated(rows, place))
