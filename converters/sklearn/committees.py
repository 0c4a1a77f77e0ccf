"""Bagging and AdaBoost: of trees as one ensemble, of other estimators as skl2onnx has them.

skl2onnx 1.20 writes an operator a tree, adds their answers in single precision, and mixes up precisions where
an AdaBoostClassifier is given float64 rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from onnxtool.converters.sklearn.graph import Graph, element_type
from onnxtool.converters.sklearn.trees import (
    Tree,
    classes_of,
    give_means,
    give_shares,
    sum_of_numbers,
    total,
)
from onnxtool.errors import require

TREES = frozenset({"DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor"})


def register() -> None:
    """Stand before skl2onnx's converters for this family."""
    ensemble = require("sklearn.ensemble", "sklearn")
    update = require("skl2onnx", "sklearn").update_registered_converter
    registered = require("skl2onnx.common._registration", "sklearn")
    for name, convert in (
        ("BaggingClassifier", _convert_bagging_classifier),
        ("BaggingRegressor", _convert_bagging_regressor),
        ("AdaBoostClassifier", _convert_adaboost),
    ):
        alias = f"Sklearn{name}"
        upstream = registered.get_converter(alias)
        update(
            getattr(ensemble, name),
            alias,
            registered.get_shape_calculator(alias),
            _of_trees(convert, upstream),
            options=upstream.get_allowed_options() or None,
        )


def _of_trees(convert: Callable[..., None], upstream: Callable[..., None]) -> Callable[..., None]:
    """Choose the converter by what the committee's members are."""

    def choose(scope: Any, operator: Any, container: Any) -> None:
        members = operator.raw_operator.estimators_
        of_trees = all(type(member).__name__ in TREES and member.n_outputs_ == 1 for member in members)
        (convert if of_trees else upstream)(scope, operator, container)

    return choose


def _convert_bagging_classifier(scope: Any, operator: Any, container: Any) -> None:
    model = operator.raw_operator
    graph = Graph(scope, container)
    binary = len(model.classes_) == 2
    trees = []
    for member, columns in zip(model.estimators_, model.estimators_features_, strict=True):
        shares = np.zeros((member.tree_.node_count, len(model.classes_)))
        shares[:, np.asarray(member.classes_, dtype=int)] = member.tree_.value[:, 0, :]
        trees.append(Tree(member.tree_, shares[:, 1:] if binary else shares, columns))
    base = np.zeros(1 if binary else len(model.classes_))
    sums, element = total(graph, graph.rows(operator, TensorProto.FLOAT), trees, base, exact=True)
    give_shares(graph, operator, sums, element, len(trees))


def _convert_bagging_regressor(scope: Any, operator: Any, container: Any) -> None:
    model = operator.raw_operator
    graph = Graph(scope, container)
    trees = [
        Tree(member.tree_, member.tree_.value[:, :, 0], columns)
        for member, columns in zip(model.estimators_, model.estimators_features_, strict=True)
    ]
    sums, element = sum_of_numbers(graph, operator, trees, np.zeros(1))
    give_means(graph, operator, sums, element, len(trees))


def _convert_adaboost(scope: Any, operator: Any, container: Any) -> None:
    """Each tree adds its weight to the class that it names and takes a share of it from each other."""
    model = operator.raw_operator
    graph = Graph(scope, container)
    count = len(model.classes_)
    binary = count == 2
    trees = []
    for member, weight in zip(model.estimators_, model.estimator_weights_, strict=False):
        named = member.classes_[member.tree_.value[:, 0, :].argmax(axis=1)]
        votes = np.where(named[:, np.newaxis] == model.classes_, weight, -weight / max(count - 1, 1))
        trees.append(Tree(member.tree_, votes[:, 1:] if binary else votes))
    base = np.zeros(1 if binary else count)
    votes, element = total(graph, graph.rows(operator, TensorProto.FLOAT), trees, base, exact=True)
    label, given = (value.full_name for value in operator.outputs[:2])
    classes = classes_of(scope, model)
    if binary:
        ahead = graph.node("Greater", [votes, graph.constant(element, [0.0])])
        graph.labels_at(graph.node("Cast", ahead, to=TensorProto.INT64), classes, label)
        votes = graph.node("Concat", [graph.node("Neg", votes), votes], axis=1)
    else:
        graph.labels(votes, classes, label)
    target_dtype = element_type(operator)
    weight = float(model.estimator_weights_.sum())
    raw = container.get_options(model, {"raw_scores": False})["raw_scores"]
    # For two classes the decision function is the difference of the votes, which is twice each.
    scale = weight / 2 if binary and raw else weight if raw or binary else weight * (count - 1)
    scaled = graph.node("Div", [graph.cast(votes, element, target_dtype), graph.constant(target_dtype, [scale])])
    if raw:
        graph.node("Identity", scaled, given)
    else:
        graph.node("Softmax", scaled, given, axis=1)
