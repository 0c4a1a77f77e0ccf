"""Conversions that users and the modules of third-party libraries register, written in NumPy and pandas."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeAlias

Converter: TypeAlias = Callable[[Any, Any], Any]
"""Takes a fitted estimator and its rows, and gives what a method of the estimator would give."""

_REGISTERED: dict[tuple[str, str], Converter] = {}

CONTRIB = {
    "category_encoders": "onnxtool.converters.sklearn.contrib.category_encoders",
    "skorch": "onnxtool.converters.sklearn.contrib.skorch",
    "imblearn": "onnxtool.converters.sklearn.contrib.imbalanced_learn",
    "feature_engine": "onnxtool.converters.sklearn.contrib.feature_engine",
}
"""Libraries whose estimators have conversions here, and the modules that register them."""


def register_converter(kind: type | str, method: str = "transform") -> Callable[[Converter], Converter]:
    """Register how an estimator of a class is converted, in place of the code of one of its methods.

    The function is written in NumPy or pandas, and run on rows that write down what is done to them. It is given what
    the method would be given: the fitted estimator, and a matrix or a data frame of rows.

        @onnxtool.register_converter(PriceScaler)
        def scale(model, rows):
            return np.log1p(rows) / model.scale_

    Args:
        kind: The class, or its full name, `package.module.Class`.
        method: The method for which the function stands: `transform`, `predict`, `predict_proba` or
            `decision_function`.

    Returns:
        A decorator, which gives the function back.
    """
    name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"

    def register(function: Converter) -> Converter:
        _REGISTERED[name, method] = function
        return function

    return register


def converter_of(kind: type, method: str = "") -> Converter | None:
    """The function that stands for a method of a class; for any method where none is named."""
    module = CONTRIB.get(kind.__module__.partition(".")[0])
    if module is not None:
        import_module(module)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if method:
        return _REGISTERED.get((name, method))
    return next((found for (known, _), found in _REGISTERED.items() if known == name), None)
