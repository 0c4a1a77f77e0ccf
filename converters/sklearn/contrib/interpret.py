"""Explainable boosting machines of InterpretML: an ensemble of trees, one a term, gives the score and its reasons.

A term's tree finds the bins of its one or two features; its leaf holds the term's score in as many targets as there
are classes, in two numbers of single precision whose sum is exact. So the contributions of the terms are what the
node gives, and the score is their sum.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from onnxtool.converters.sklearn.graph import ML, Graph, is_double, number_type
from onnxtool.converters.sklearn.registration import OPTIONS, Column, classes_of, columns_given
from onnxtool.converters.sklearn.values import Value, repeated
from onnxtool.errors import ConversionError, require

KINDS = ("ExplainableBoostingClassifier", "ExplainableBoostingRegressor")
PRIVATE = ("DPExplainableBoostingClassifier", "DPExplainableBoostingRegressor")


def register() -> None:
    """Make the machines known to skl2onnx."""
    glassbox, privacy = require("interpret.glassbox", "interpret"), require("interpret.privacy", "interpret")
    update = require("skl2onnx", "sklearn").update_registered_converter
    for kind in (*(getattr(glassbox, name) for name in KINDS), *(getattr(privacy, name) for name in PRIVATE)):
        options = OPTIONS if kind.__name__.endswith("Classifier") else None
        update(kind, f"Interpret{kind.__name__}", _shapes, _convert, parser=_parse, options=options)


def _parse(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    types = require("skl2onnx.common.data_types", "sklearn")
    alias = require("skl2onnx._supported_operators", "sklearn").sklearn_operator_name_map[type(model)]
    operator = scope.declare_local_operator(alias, model)
    operator.inputs = inputs
    names = ("label", "probabilities") if hasattr(model, "classes_") else ("variable",)
    for name in (*names, "contributions"):
        kind = types.Int64TensorType if name == "label" else number_type(operator)
        operator.outputs.append(scope.declare_local_variable(name, kind()))
    return operator.outputs


def _shapes(operator: Any) -> None:
    types = require("skl2onnx.common.data_types", "sklearn")
    model, outputs = operator.raw_operator, operator.outputs
    rows, numbers = operator.inputs[0].get_first_dimension(), number_type(operator)
    count = _count(model)
    if hasattr(model, "classes_"):
        label = types.StringTensorType if classes_of(operator).dtype.kind in "OUS" else types.Int64TensorType
        outputs[0].set_type(label([rows]))
        if len(outputs) > 1:
            outputs[1].set_type(numbers([rows, len(model.classes_)]))
    else:
        outputs[0].set_type(numbers([rows, 1]))
    if len(outputs) > 1 + hasattr(model, "classes_"):
        terms = [len(model.term_features_)]
        outputs[-1].set_type(numbers([rows, *terms, *([count] if count > 1 else [])]))


def _count(model: Any) -> int:
    """Scores of a row: one, or one a class."""
    return int(np.size(model.intercept_))


def _convert(scope: Any, operator: Any, container: Any) -> None:
    model, graph = operator.raw_operator, Graph(scope, container)
    columns = columns_given(graph, operator)
    element = TensorProto.DOUBLE if is_double(operator) else TensorProto.FLOAT
    count, terms = _count(model), len(model.term_features_)
    both = _ensemble(graph, columns, model)
    values = both.columns(np.arange(count * terms))
    scores = values + both.columns(count * terms + np.arange(count * terms))
    scores = scores.reshape(-1, terms, count).sum(axis=1).reshape(-1, count)
    scores = scores + np.atleast_1d(np.asarray(model.intercept_, dtype=float))
    outputs = [output.full_name for output in operator.outputs]
    if hasattr(model, "classes_"):
        confidence = _probabilities(scores, model)
        two = count == 1 and len(model.classes_) == 2
        place = (scores > 0.0).whole().reshape(-1) if two else scores.first_greatest()
        classes = classes_of(operator)
        known = classes.astype(str).astype(object) if classes.dtype.kind in "OUS" else classes.astype(np.int64)
        place.of(known).at(place).apply("Identity", output=outputs[0])
        if len(outputs) > 1:
            confidence.apply("Cast", output=outputs[1], to=element)
    else:
        _prediction(scores, model).apply("Cast", output=outputs[0], to=element)
    if len(outputs) > 1 + hasattr(model, "classes_"):
        shape = (-1, terms, count) if count > 1 else (-1, terms)
        values.reshape(*shape).apply("Cast", output=outputs[-1], to=element)


def _probabilities(scores: Value, model: Any) -> Value:
    if model.link_ == "logit":
        second = scores.apply("Sigmoid")
        return (1.0 - second).hstack(second)
    if model.link_ == "mlogit":
        return scores.apply("Softmax", axis=1)
    if model.link_ == "vlogit":
        return scores.apply("Sigmoid")
    if model.link_ == "monoclassification":
        return repeated(scores, np.ones(1))
    raise ConversionError(f"{type(model).__name__} with the link {model.link_!r} has no conversion to ONNX.")


def _prediction(scores: Value, model: Any) -> Value:
    if model.link_ == "identity":
        return scores
    if model.link_ == "log":
        return scores.apply("Exp")
    raise ConversionError(f"{type(model).__name__} with the link {model.link_!r} has no conversion to ONNX.")


# -- The ensemble -----------------------------------------------------------------------------------------------


def _ensemble(graph: Graph, columns: Sequence[Column], model: Any) -> Value:
    """The score of each term for each class, as two numbers: [batch, 2 * terms * classes], in double precision."""
    parts = [_bins_of(column, model, feature) for feature, column in enumerate(columns)]
    rows = parts[0].hstack(*parts[1:]) if len(parts) > 1 else parts[0]
    count, terms = _count(model), len(model.term_features_)
    trees = _Trees()
    for term, features in enumerate(model.term_features_):
        axes = [_Axis(feature, _level(model, feature, len(features))) for feature in features]
        trees.write(term, axes, np.asarray(model.term_scores_[term], dtype=float), count, terms)
    name = graph.node(
        "TreeEnsembleRegressor", rows.name, domain=ML, n_targets=2 * terms * count, aggregate_function="SUM",
        post_transform="NONE", **trees.attributes(),
    )  # fmt: skip
    return Value(graph, name, rows.narrow).double()


def _level(model: Any, feature: int, features: int) -> Any:
    """A feature's bins in a term of so many features: cuts, or the bin of each category."""
    levels = model.bins_[feature]
    return levels[min(features, len(levels)) - 1]


def _bins_of(column: Column, model: Any, feature: int) -> Value:
    """A number as it is; of a category its place among all, from 1 on, 0 where it is missing, [batch, 1]."""
    first = model.bins_[feature][0]
    if not isinstance(first, dict):
        if column.text:
            raise ConversionError(
                f"Feature {model.feature_names_in_[feature]!r} is continuous, and is given text."
            )
        return column.value
    known = list(first)
    if column.text:
        found = column.value.apply(
            "LabelEncoder", domain=ML, keys_strings=["", *known], values_int64s=list(range(len(known) + 1)),
            default_int64=len(known) + 1,
        )  # fmt: skip
        return found.double()
    numbers = np.array([_number(key) for key in known])
    same = column.value.equals(numbers.reshape(1, -1)).double()
    places = (same * np.arange(1.0, len(known) + 1)).sum()
    unknown = (1.0 - same.sum().apply("Min", 1.0)) * float(len(known) + 1)
    return column.value.apply("IsNaN").where(0.0, places + unknown)


def _number(key: str) -> float:
    """The number that a category is, NaN for one that is text; InterpretML writes whole numbers without a point."""
    truth = {"True": 1.0, "False": 0.0}
    try:
        return truth[key] if key in truth else float(key)
    except ValueError:
        return float("nan")


class _Axis:
    """The bins of one feature in a term.

    Attributes:
        feature: Its place among the columns.
        cuts: Where one bin ends and the next begins.
        bins: Places in the term's scores, one more than there are cuts.
        missing: The place for NaN, or None where no NaN comes.
    """

    def __init__(self, feature: int, level: Any) -> None:
        self.feature = feature
        self.missing: int | None = 0
        if isinstance(level, dict):
            known = list(level.values())
            self.cuts = np.arange(len(known) + 1) + 0.5
            self.bins, self.missing = [0, *known, -1], None
        else:
            self.cuts = np.asarray(level, dtype=float)
            self.bins = list(range(1, len(self.cuts) + 2))


class _Trees:
    """The attributes of an ensemble, filled term by term."""

    def __init__(self) -> None:
        self.nodes: list[tuple[int, int, int, float, bytes, int, int, int]] = []
        self.leaves: list[tuple[int, int, int, float]] = []

    def write(self, term: int, axes: list[_Axis], scores: NDArray[Any], count: int, terms: int) -> None:
        """Write a term's tree; the targets of its leaves are its own."""
        numbers = itertools.count()
        shape = scores.shape[: len(axes)]
        scores = scores.reshape(*shape, count)

        def branch(axis: _Axis, value: float, missing: int) -> tuple[int, int]:
            number = next(numbers)
            self.nodes.append((term, number, axis.feature, value, b"BRANCH_LT", 0, 0, missing))
            return number, len(self.nodes) - 1

        def join(place: int, yes: int, no: int) -> None:
            self.nodes[place] = (*self.nodes[place][:5], yes, no, self.nodes[place][7])

        def rest(depth: int, index: tuple[int, ...]) -> int:
            if depth == len(axes):
                return leaf(index)
            axis = axes[depth]
            if axis.missing is None:
                return search(depth, index, 0, len(axis.cuts))
            number, place = branch(axis, float("-inf"), 1)  # NaN alone goes the true way
            yes = rest(depth + 1, (*index, axis.missing))
            join(place, yes, search(depth, index, 0, len(axis.cuts)))
            return number

        def search(depth: int, index: tuple[int, ...], low: int, high: int) -> int:
            axis = axes[depth]
            if low == high:
                return rest(depth + 1, (*index, axis.bins[low]))
            middle = (low + high) // 2
            number, place = branch(axis, float(axis.cuts[middle]), 0)
            yes = search(depth, index, low, middle)
            join(place, yes, search(depth, index, middle + 1, high))
            return number

        def leaf(index: tuple[int, ...]) -> int:
            number = next(numbers)
            self.nodes.append((term, number, 0, 0.0, b"LEAF", 0, 0, 0))
            for place, (first, second) in enumerate(_halves(scores[index])):
                target = term * count + place
                self.leaves += [(term, number, target, first), (term, number, terms * count + target, second)]
            return number

        rest(0, ())

    def attributes(self) -> dict[str, Any]:
        """As the operator names them."""
        tree, node, feature, value, mode, yes, no, missing = map(list, zip(*self.nodes, strict=True))
        leaf_tree, leaf_node, target, weight = map(list, zip(*self.leaves, strict=True))
        return {
            "nodes_treeids": tree, "nodes_nodeids": node, "nodes_featureids": feature, "nodes_modes": mode,
            "nodes_truenodeids": yes, "nodes_falsenodeids": no, "nodes_missing_value_tracks_true": missing,
            "nodes_values_as_tensor": numpy_helper.from_array(np.array(value), "values"),
            "target_treeids": leaf_tree, "target_nodeids": leaf_node, "target_ids": target,
            "target_weights_as_tensor": numpy_helper.from_array(np.array(weight), "weights"),
        }  # fmt: skip


def _halves(scores: NDArray[Any]) -> Iterator[tuple[float, float]]:
    """Each score rounded to single precision, and what that leaves."""
    for score in scores.tolist():
        first = float(np.float32(score))
        yield first, score - first if np.isfinite(first) else 0.0
