"""Decision trees and everything made of them, converted so that each row takes the branch that it takes there.

The rules, for every tree of scikit-learn but the histogram ones (`hist_gradient_boosting`):

* Rows are rounded to float32 first, whatever they come in, and compared as `float32(x) <= t` with a double t.
  The graph casts likewise, so float64 rows follow the same path; a tree in double precision would not.
* For a float32 x, `x <= t` is `x <= the greatest float32 not above t`, exactly.
* A missing value goes the way that the node says.
* Labels depend on sums of leaves, added there in double precision. The operator adds in single precision, in an
  order that depends on its threads. So a leaf is written as a multiple of a quantum so coarse that no sum of such
  multiples is rounded, and, where it is no such multiple, its remainder as a second target; the graph adds both
  in double precision. Leaves of one class alone, which fully grown trees have, need no remainder. What is left
  is an error of about 2**-40 of the greatest possible sum, in place of 2**-20.

skl2onnx 1.20 rounds leaves to float32 (so that votes that are level fall on either side), writes trees of
double rows as ONNX Runtime refuses them, and fails on isolation forests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto

from onnxtool.converters.sklearn.graph import (
    ML,
    Graph,
    element_type,
    is_double,
    label_type,
    number_type,
    write_later,
)
from onnxtool.converters.sklearn.nested import answers_of
from onnxtool.converters.sklearn.values import Value
from onnxtool.errors import require

CLASSIFIERS = (
    "tree.DecisionTreeClassifier", "tree.ExtraTreeClassifier",
    "ensemble.RandomForestClassifier", "ensemble.ExtraTreesClassifier",
)  # fmt: skip
REGRESSORS = (
    "tree.DecisionTreeRegressor", "tree.ExtraTreeRegressor",
    "ensemble.RandomForestRegressor", "ensemble.ExtraTreesRegressor",
)  # fmt: skip
FAMILIES = ("DecisionTree", "ExtraTree", "RandomForest", "ExtraTrees", "GradientBoosting", "HistGradientBoosting")
EXACT = {f"{kind}{task}" for kind in FAMILIES for task in ("Classifier", "Regressor")} | {"IsolationForest"}
"""Estimators whose rows, converted, take the same branches in every precision: there is nothing to choose."""
LABELS = {"zipmap": [True, False, "columns"], "nocl": [True, False], "output_class_labels": [False, True]}


def register() -> None:
    """Replace skl2onnx's converters for this family."""
    update = require("skl2onnx", "sklearn").update_registered_converter
    for names, shapes, convert, options in (
        (CLASSIFIERS, _classifier_shapes, _convert_classifier, LABELS),
        (REGRESSORS, _regressor_shapes, _convert_regressor, None),
        (
            ("ensemble.GradientBoostingClassifier",),
            _classifier_shapes,
            _convert_boosting_classifier,
            {**LABELS, "raw_scores": [True, False]},
        ),
        (("ensemble.GradientBoostingRegressor",), _regressor_shapes, _convert_boosting_regressor, None),
        (("ensemble.IsolationForest",), _outlier_shapes, _convert_isolation, {"score_samples": [True, False]}),
    ):
        for name in names:
            module, _, kind = name.partition(".")
            estimator = getattr(require(f"sklearn.{module}", "sklearn"), kind)
            update(estimator, f"Sklearn{kind}", shapes, convert, options=options)


# -- Sums of leaves -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tree:
    """A fitted tree and the values of its leaves.

    Attributes:
        nodes: scikit-learn's `tree_`.
        values: What each node, were it a leaf, adds to each target, [nodes, targets].
        columns: The columns of the rows that its features are, or None for all of them in order.
    """

    nodes: Any
    values: NDArray[np.float64]
    columns: NDArray[np.int64] | None = None

    @property
    def leaves(self) -> NDArray[np.float64]:
        """The values of the leaves, [leaves, targets]."""
        return np.asarray(self.values[self.nodes.children_left < 0])


def total(
    graph: Graph, rows: str, trees: Sequence[Tree], base: NDArray[np.float64], exact: bool
) -> tuple[str, int]:
    """Sum the leaves that each row reaches.

    Args:
        graph: Where to write.
        rows: Name of a float32 matrix.
        trees: At least one.
        base: What the sum starts from, [targets].
        exact: Whether the rounding of single precision would be too much.

    Returns:
        The name of the sums, [batch, targets], and their element type: FLOAT when these are exact or need not be,
        else DOUBLE.
    """
    targets = len(base)
    bound = np.abs(base).max() + sum(np.abs(tree.leaves).max() for tree in trees)
    quantum = quantum_up_to(float(bound)) if exact else 0.0
    if quantum and all(_is_multiple(values, quantum) for values in (base, *(tree.leaves for tree in trees))):
        quantum = 0.0
    coarse, fine = halves_of(base, quantum)
    sums = graph.node("TreeEnsembleRegressor", rows, domain=ML, n_targets=targets * (2 if quantum else 1))
    start = np.concatenate([coarse, fine]) if quantum else coarse
    write_later(graph.container.nodes[-1], partial(_write_attributes, trees=trees, base=start, quantum=quantum))
    if not quantum:
        return sums, TensorProto.FLOAT
    return add_halves(graph, sums, targets), TensorProto.DOUBLE


def add_halves(graph: Graph, sums: str, targets: int) -> str:
    """Add the sums of the multiples, [batch, 2 * targets], and of the remainders, in double precision."""
    both = graph.tensor(np.vstack([np.eye(targets)] * 2))
    return graph.node("MatMul", [graph.node("Cast", sums, to=TensorProto.DOUBLE), both])


def quantum_up_to(bound: float) -> float:
    """The least power of two of which float32 holds every multiple up to a bound; zero for none."""
    return float(2.0 ** max(np.ceil(np.log2(bound)) - 24, -149)) if bound > 0 else 0.0


def _is_multiple(values: NDArray[np.float64], quantum: float) -> bool:
    return bool(np.array_equal(np.round(values / quantum) * quantum, values))


def halves_of(values: NDArray[np.float64], quantum: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Multiples of a quantum, and the remainders."""
    coarse = np.round(values / quantum) * quantum if quantum else values
    return coarse, values - coarse


def _write_attributes(
    node: onnx.NodeProto, trees: Sequence[Tree], base: NDArray[np.float64], quantum: float
) -> None:
    """Give the operator its attributes.

    They are filled from arrays, one at a time: `onnx.helper` would check every number of millions.
    """
    fields = [_nodes(tree) for tree in trees]
    counts = [len(tree["modes"]) for tree in fields]
    _whole_numbers(node, "nodes_treeids", np.repeat(np.arange(len(trees)), counts))
    _whole_numbers(node, "nodes_nodeids", np.concatenate([np.arange(count) for count in counts]))
    for name in list(fields[0]):
        values = np.concatenate([tree.pop(name) for tree in fields])
        attribute = f"nodes_{name}"
        if name == "values":
            node.attribute.add(name=attribute, type=AttributeProto.FLOATS).floats.extend(values.tolist())
        elif name == "modes":
            modes = [b"LEAF" if leaf else b"BRANCH_LEQ" for leaf in values.tolist()]
            node.attribute.add(name=attribute, type=AttributeProto.STRINGS).strings.extend(modes)
        elif name != "missing_value_tracks_true" or values.any():
            _whole_numbers(node, attribute, values)
    leaves = [_leaves(tree, quantum) for tree in trees]
    places, targets, weights = (np.concatenate(parts) for parts in zip(*leaves, strict=True))
    _whole_numbers(node, "target_treeids", np.repeat(np.arange(len(trees)), [len(one[0]) for one in leaves]))
    _whole_numbers(node, "target_nodeids", places)
    _whole_numbers(node, "target_ids", targets)
    node.attribute.add(name="target_weights", type=AttributeProto.FLOATS).floats.extend(weights.tolist())
    if base.any():
        node.attribute.append(onnx.helper.make_attribute("base_values", base.tolist()))


def _whole_numbers(node: onnx.NodeProto, name: str, values: NDArray[Any]) -> None:
    node.attribute.add(name=name, type=AttributeProto.INTS).ints.extend(values.tolist())


def _nodes(tree: Tree) -> dict[str, NDArray[Any]]:
    nodes = tree.nodes
    leaf = nodes.children_left < 0
    features = np.where(leaf, 0, nodes.feature)
    return {
        "featureids": features if tree.columns is None else np.where(leaf, 0, np.asarray(tree.columns)[features]),
        "truenodeids": np.where(leaf, 0, nodes.children_left),
        "falsenodeids": np.where(leaf, 0, nodes.children_right),
        "missing_value_tracks_true": np.where(leaf, 0, nodes.missing_go_to_left),
        "values": np.where(leaf, 0, float32_at_most(nodes.threshold)),
        "modes": leaf,
    }


def _leaves(tree: Tree, quantum: float) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """Node, target and weight of what leaves add, zeros left out."""
    places = np.flatnonzero(tree.nodes.children_left < 0)
    values = tree.leaves
    if quantum:
        values = np.hstack(halves_of(values, quantum))
    is_nonzero = values != 0
    is_nonzero[~is_nonzero.any(axis=1), 0] = True  # a leaf without a weight is no leaf to the operator
    rows, targets = np.nonzero(is_nonzero)
    return places[rows], targets, values[rows, targets]


def float32_at_most(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The greatest float32 not above each double: for a float32 x, x <= one exactly where x <= the other."""
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
        below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest.astype(np.float64) > values, below, nearest)


# -- Trees and forests ----------------------------------------------------------------------------------------


def _members(model: Any) -> list[Any]:
    return list(getattr(model, "estimators_", (model,)))


def _convert_classifier(scope: Any, operator: Any, container: Any) -> None:
    model = operator.raw_operator
    graph = Graph(scope, container)
    members = [member.tree_ for member in _members(model)]
    counts = [model.n_classes_] if model.n_outputs_ == 1 else list(model.n_classes_)
    binary = counts == [2]
    trees = [
        Tree(nodes, nodes.value[:, 0, 1:2] if binary else _side_by_side(nodes.value, counts)) for nodes in members
    ]
    sums, element = total(
        graph, graph.rows(operator, TensorProto.FLOAT), trees, np.zeros(1 if binary else sum(counts)), True
    )
    label, probabilities = (value.full_name for value in operator.outputs[:2])
    if model.n_outputs_ == 1:
        give_shares(graph, operator, sums, element, len(trees))
        return
    target_dtype = element_type(operator)
    shares = graph.node(
        "Div", [graph.cast(sums, element, target_dtype), graph.constant(target_dtype, [float(len(trees))])]
    )
    labels, parts = [], []
    for classes, places in zip(
        model.classes_, np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1]), strict=True
    ):
        columns = graph.constant(TensorProto.INT64, places.tolist())
        found = graph.labels(graph.node("Gather", [sums, columns], axis=1), classes)
        labels.append(graph.node("Reshape", [found, graph.constant(TensorProto.INT64, [-1, 1])]))
        parts.append(graph.node("Gather", [shares, columns], axis=1))
    graph.node("Concat", labels, label, axis=1)
    graph.node("SequenceConstruct", parts, probabilities)


def give_shares(graph: Graph, operator: Any, sums: str, element: int, count: int) -> None:
    """Give the label and the probabilities: the sums over so many trees, in one column for two classes."""
    target_dtype = element_type(operator)
    label, probabilities = (value.full_name for value in operator.outputs[:2])
    classes = classes_of(graph.scope, operator.raw_operator)
    if len(classes) == 2:  # two shares that make one
        whole = graph.constant(element, [float(count)])
        sums = graph.node("Concat", [graph.node("Sub", [whole, sums]), sums], axis=1)
    graph.labels(sums, classes, label)
    wide = graph.cast(sums, element, target_dtype)
    graph.node("Div", [wide, graph.constant(target_dtype, [float(count)])], probabilities)


def _side_by_side(value: NDArray[np.float64], counts: Sequence[int]) -> NDArray[np.float64]:
    """The shares of the classes of all targets, [nodes, sum of counts], from [nodes, targets, most classes]."""
    if len(counts) == 1:
        return value[:, 0, :]
    return np.hstack([value[:, target, :count] for target, count in enumerate(counts)])


def classes_of(scope: Any, model: Any) -> NDArray[Any]:
    """The labels, or their positions where the operator's options ask for them."""
    module = require("skl2onnx.common.utils_classifier", "sklearn")
    return np.asarray(module.get_label_classes(scope, model))


def _classifier_shapes(operator: Any) -> None:
    types = require("skl2onnx.common.data_types", "sklearn")
    model = operator.raw_operator
    rows = operator.inputs[0].get_first_dimension()
    number = number_type(operator)
    if getattr(model, "n_outputs_", 1) == 1:
        operator.outputs[0].set_type(label_type(classes_of(operator.scope_inst, model))([rows]))
        operator.outputs[1].set_type(number([rows, len(model.classes_)]))
        return
    operator.outputs[0].set_type(label_type(model.classes_[0])([rows, model.n_outputs_]))
    operator.outputs[1].set_type(types.SequenceType(number([rows, None])))


def _convert_regressor(scope: Any, operator: Any, container: Any) -> None:
    graph = Graph(scope, container)
    members = _members(operator.raw_operator)
    trees = [Tree(member.tree_, member.tree_.value[:, :, 0]) for member in members]
    sums, element = sum_of_numbers(graph, operator, trees, np.zeros(operator.raw_operator.n_outputs_))
    give_means(graph, operator, sums, element, len(trees))


def give_means(graph: Graph, operator: Any, sums: str, element: int, count: int) -> None:
    """Give the sums over so many trees, divided by their number."""
    target_dtype = element_type(operator)
    wide = graph.cast(sums, element, target_dtype)
    graph.node("Div", [wide, graph.constant(target_dtype, [float(count)])], operator.outputs[0].full_name)


def sum_of_numbers(
    graph: Graph, operator: Any, trees: Sequence[Tree], base: NDArray[np.float64]
) -> tuple[str, int]:
    """Sums as precise as the numbers that the operator gives."""
    return total(graph, graph.rows(operator, TensorProto.FLOAT), trees, base, exact=is_double(operator))


def _regressor_shapes(operator: Any) -> None:
    targets = getattr(operator.raw_operator, "n_outputs_", 1)
    rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].set_type(number_type(operator)([rows, targets]))


# -- Gradient boosting ----------------------------------------------------------------------------------------


def _raw_scores(graph: Graph, operator: Any) -> tuple[str, int]:
    model = operator.raw_operator
    targets = model.estimators_.shape[1]
    own = model.init is None or isinstance(model.init, str)
    base = np.zeros(targets)
    if own:
        base = np.ravel(model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32))).astype(
            float
        )
    rows, element = graph.rows(operator, TensorProto.FLOAT), element_type(operator)
    sums = []
    for target, members in enumerate(model.estimators_.T):  # an operator a target is faster than one for all
        trees = [Tree(member.tree_, model.learning_rate * member.tree_.value[:, 0, :1]) for member in members]
        found = total(graph, rows, trees, base[target : target + 1], exact=is_double(operator))
        sums.append(graph.cast(*found, element))
    raw = sums[0] if targets == 1 else graph.node("Concat", sums, axis=1)
    if own:
        return raw, element
    start = _start(graph, operator, targets)
    return graph.node("Add", [graph.cast(raw, element, TensorProto.DOUBLE), start.name]), TensorProto.DOUBLE


def _start(graph: Graph, operator: Any, targets: int) -> Value:
    """The raw prediction of an estimator given as `init`, through the loss's link, [batch, targets], in double."""
    model = operator.raw_operator
    is_nonzero = answers_of(
        model.init_, Value(graph, graph.rows(operator, TensorProto.FLOAT), narrow=True).double()
    )
    if "prediction" in is_nonzero:
        return is_nonzero["prediction"].reshape(-1, 1)
    least = float(np.finfo(np.float64).eps)
    shares = is_nonzero["probabilities"].apply("Max", least).apply("Min", 1 - least)
    if targets == 1:
        second = shares.columns([1])
        odds = (second / (1.0 - second)).apply("Log")
        return odds * (0.5 if model.loss == "exponential" else 1.0)
    logarithms = shares.apply("Log")
    return logarithms - logarithms.sum() / float(targets)


def _convert_boosting_regressor(scope: Any, operator: Any, container: Any) -> None:
    graph = Graph(scope, container)
    raw, element = _raw_scores(graph, operator)
    graph.cast(raw, element, element_type(operator), operator.outputs[0].full_name)


def _convert_boosting_classifier(scope: Any, operator: Any, container: Any) -> None:
    model = operator.raw_operator
    graph = Graph(scope, container)
    raw, element = _raw_scores(graph, operator)
    raw, element = graph.cast(raw, element, element_type(operator)), element_type(operator)
    label, given = (value.full_name for value in operator.outputs[:2])
    binary = len(model.classes_) == 2
    both = graph.node("Concat", [graph.node("Neg", raw), raw], axis=1) if binary else raw
    if binary:  # level scores are the second class's there
        late = graph.node("Not", graph.node("Less", [raw, graph.constant(element, [0.0])]))
        graph.labels_at(graph.node("Cast", late, to=TensorProto.INT64), classes_of(scope, model), label)
    else:
        graph.labels(raw, classes_of(scope, model), label)
    if container.get_options(model, {"raw_scores": False})["raw_scores"]:
        graph.node("Identity", both, given)
    elif binary:
        # The exponential loss takes half the logarithm of the odds.
        factor = graph.constant(element, [2.0 if model.loss == "exponential" else 1.0])
        graph.node("Sigmoid", graph.node("Mul", [both, factor]), given)
    else:
        graph.node("Softmax", both, given, axis=1)


# -- Isolation forest -----------------------------------------------------------------------------------------


def _convert_isolation(scope: Any, operator: Any, container: Any) -> None:
    model = operator.raw_operator
    graph = Graph(scope, container)
    path_length = require("sklearn.ensemble._iforest", "sklearn")._average_path_length
    trees = []
    for member, columns in zip(model.estimators_, model.estimators_features_, strict=True):
        depths = _depths(member.tree_) + path_length(member.tree_.n_node_samples)
        trees.append(Tree(member.tree_, depths[:, np.newaxis], columns))
    depth, element = total(graph, graph.rows(operator, TensorProto.FLOAT), trees, np.zeros(1), True)
    depth = graph.cast(depth, element, TensorProto.DOUBLE)
    longest = len(trees) * float(path_length([model._max_samples])[0])
    label, scores = (value.full_name for value in operator.outputs[:2])
    # A row at the threshold, as one row of the training data is, is no outlier: the label compares the sum's
    # depth, with room for its rounding, and not the score.
    least = -longest * np.log2(-model.offset_) * (1 - 2.0**-36)
    deep = graph.node("Less", [depth, graph.constant(TensorProto.DOUBLE, [least])])
    minus = graph.constant(TensorProto.INT64, [-1])
    graph.node("Where", [deep, minus, graph.constant(TensorProto.INT64, [1])], label)
    two = graph.constant(TensorProto.DOUBLE, [2.0])
    power = graph.node("Pow", [two, graph.node("Div", [depth, graph.constant(TensorProto.DOUBLE, [-longest])])])
    decision = graph.node("Sub", [graph.constant(TensorProto.DOUBLE, [-model.offset_]), power])
    graph.cast(decision, TensorProto.DOUBLE, element_type(operator), scores)


def _depths(nodes: Any) -> NDArray[np.float64]:
    """The number of splits above each node."""
    depths = np.zeros(nodes.node_count)
    for place in range(nodes.node_count):  # children come after their parents
        for child in (nodes.children_left[place], nodes.children_right[place]):
            if child >= 0:
                depths[child] = depths[place] + 1
    return depths


def _outlier_shapes(operator: Any) -> None:
    types = require("skl2onnx.common.data_types", "sklearn")
    rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].set_type(types.Int64TensorType([rows, 1]))
    operator.outputs[1].set_type(number_type(operator)([rows, 1]))
