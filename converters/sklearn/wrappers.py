"""Estimators that only stand for another one: what a search has found, and what is frozen."""

from __future__ import annotations

from typing import Any

from onnxtool.errors import require

FOUND = ("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV")


def register() -> None:
    """Parse the inner estimator in place of the outer one, wherever it stands."""
    require("sklearn.experimental.enable_halving_search_cv", "sklearn")
    selection = require("sklearn.model_selection", "sklearn")
    frozen = require("sklearn.frozen", "sklearn").FrozenEstimator
    for kind in (*(getattr(selection, name) for name in FOUND), frozen):
        _register(kind)


def inner(model: Any) -> Any:
    """The estimator that answers for a search or a frozen estimator, itself for others."""
    while True:
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif type(model).__name__ == "FrozenEstimator":
            model = model.estimator
        else:
            return model


def _register(kind: Any) -> None:
    def parser(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
        parse = require("skl2onnx._parse", "sklearn")._parse_sklearn
        return parse(scope, inner(model), inputs, custom_parsers=custom_parsers)

    update = require("skl2onnx", "sklearn").update_registered_converter
    update(kind, f"Onnxtool{kind.__name__}", _no_shapes, _no_nodes, parser=parser)


def _no_shapes(operator: Any) -> None:
    raise AssertionError("The inner estimator stands for this one.")


def _no_nodes(scope: Any, operator: Any, container: Any) -> None:
    raise AssertionError("The inner estimator stands for this one.")
