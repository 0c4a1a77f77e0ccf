"""skorch: its module converts as a module of PyTorch does, and what skorch makes of the answer is written after."""

from __future__ import annotations

import inspect
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import onnx

from onnxtool.converters.framework import ConvertOptions, frameworks
from onnxtool.converters.tracing.arrays import CURRENT, Traced, astype, current
from onnxtool.converters.tracing.converters import register_converter
from onnxtool.errors import ConversionError, require
from onnxtool.models.signature import BATCH, TensorSpec
from onnxtool.models.source import LoadOptions

_EXAMPLE_ROWS = 2


_CONVERTED: WeakKeyDictionary[Any, dict[tuple[int, int], onnx.ModelProto]] = WeakKeyDictionary()
"""Modules that are converted already, by width and opset: a step is traced several times."""


def _forward(net: Any, rows: Any) -> Any:
    """What the module gives for rows of single precision."""
    matrix: Any = astype(np.asarray(rows), np.dtype(np.float32))  # type: ignore[arg-type]  # they are traced
    recording = current().recording
    token = CURRENT.set(None)  # what follows runs on arrays of numbers
    try:
        converted = _converted(net.module_, matrix.example, recording.opset)
        known = _known(net.module_, matrix.example)
    finally:
        CURRENT.reset(token)
    names = recording.include(converted, {converted.graph.input[0].name: matrix.name})
    return Traced(next(iter(names.values())), known)


def _converted(module: Any, rows: Any, opset: int) -> onnx.ModelProto:
    kept = _CONVERTED.setdefault(module, {})
    key = (rows.shape[1], opset)
    if key not in kept:
        name = next(iter(inspect.signature(module.forward).parameters))
        spec = TensorSpec(name, "float32", (BATCH, rows.shape[1]))
        framework = frameworks()["torch"]
        source = framework.wrap(module, LoadOptions(inputs=(spec,)))
        kept[key] = framework.convert(source, {name: rows[:_EXAMPLE_ROWS]}, ConvertOptions(opset=opset)).model
    return kept[key]


def _known(module: Any, rows: Any) -> Any:
    torch = require("torch", "torch")
    with torch.no_grad():
        answer = module.eval()(torch.as_tensor(np.ascontiguousarray(rows)))
    return (answer[0] if isinstance(answer, tuple) else answer).numpy()


def _probabilities(net: Any, rows: Any) -> Any:
    """What skorch makes of the module's first answer, by its criterion."""
    answer = _forward(net, rows)
    chosen = net.predict_nonlinearity
    criterion = type(net.criterion_).__name__
    if chosen is None or (chosen == "auto" and criterion not in ("CrossEntropyLoss", "BCEWithLogitsLoss")):
        return answer
    if chosen != "auto":
        raise ConversionError(
            f"{type(net).__name__} with a predict_nonlinearity of one's own has no conversion to ONNX."
        )
    if criterion == "CrossEntropyLoss":
        shares = np.exp(answer - np.max(answer, axis=1, keepdims=True))
        return shares / np.sum(shares, axis=1, keepdims=True)
    second = 1 / (1 + np.exp(-np.reshape(answer, (len(answer), 1))))
    return np.concatenate([1 - second, second], axis=1)


def _label(net: Any, rows: Any) -> Any:
    return np.argmax(_probabilities(net, rows), axis=1)


def _binary_label(net: Any, rows: Any) -> Any:
    return np.where(_probabilities(net, rows)[:, 1] > net.threshold, 1, 0)


for _kind, _predict in (
    ("classifier.NeuralNetClassifier", _label),
    ("classifier.NeuralNetBinaryClassifier", _binary_label),
    ("regressor.NeuralNetRegressor", _forward),
):
    register_converter(f"skorch.{_kind}", "predict")(_predict)
    if _kind.startswith("classifier"):
        register_converter(f"skorch.{_kind}", "predict_proba")(_probabilities)
