"""Histogram gradient boosting, which skl2onnx 1.20 cannot convert with scikit-learn 1.9 ("Unable to create node").

A row takes the same branch in ONNX as in scikit-learn, which compares in double precision:

* x <= t for a double t: with a double input the threshold stays double. With a float32 input it is rounded as
  `float32_threshold` says, which depends on the rows.
* A missing value goes the way that the node says.
* Membership in a set of categories becomes a chain of equalities that share their target. ONNX Runtime takes a
  node with several parents, and folds such chains into one test.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from onnxtool.converters.sklearn.graph import ML, Graph, is_double, number_type
from onnxtool.converters.sklearn.trees import add_halves, halves_of, quantum_up_to
from onnxtool.errors import ConversionError, require
from onnxtool.models.sklearn.lineage import is_missing


def register() -> None:
    """Replace skl2onnx's converters for this family."""
    skl2onnx = require("skl2onnx", "sklearn")
    ensemble = require("sklearn.ensemble", "sklearn")
    skl2onnx.update_registered_converter(
        ensemble.HistGradientBoostingClassifier,
        "SklearnHistGradientBoostingClassifier",
        _classifier_shapes,
        _convert_classifier,
        options={
            "zipmap": [True, False, "columns"],
            "raw_scores": [True, False],
            "output_class_labels": [False, True],
            "nocl": [True, False],
        },
    )
    skl2onnx.update_registered_converter(
        ensemble.HistGradientBoostingRegressor,
        "SklearnHistGradientBoostingRegressor",
        _regressor_shapes,
        _convert_regressor,
    )


# -- The trees ------------------------------------------------------------------------------------------------


@dataclass
class Trees:
    """Attributes of a TreeEnsembleRegressor, a list an attribute.

    Attributes:
        double: Whether rows are compared in double precision.
    """

    double: bool
    nodes: dict[str, list[Any]] = field(default_factory=dict)
    leaves: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, predictor: Any, tree: int) -> None:
        """Add one tree of a fitted model."""
        spare = len(predictor.nodes)  # ids above the tree's own, for the links of chains
        for place, node in enumerate(predictor.nodes):
            if node["is_leaf"]:
                self._node(tree, place, "LEAF")
                self._leaf(tree, place, float(node["value"]))
            elif node["is_categorical"]:
                spare = self._chain(predictor, node, tree, place, spare)
            else:
                threshold = float(node["num_threshold"])
                value = threshold if self.double else float32_threshold(threshold)
                self._node(tree, place, "BRANCH_LEQ", values=value, **_branch(node))

    def _chain(self, predictor: Any, node: Any, tree: int, place: int, spare: int) -> int:
        """Write `x in set` as equalities, one a category; the encoder leaves no value outside the known ones."""
        # No category may go left, only what is missing; no code is negative.
        members = _members(predictor.raw_left_cat_bitsets[int(node["bitset_idx"])]) or [-1]
        links = [place, *range(spare, spare + len(members) - 1)]
        branch = _branch(node)
        for link, following, member in zip(links, [*links[1:], branch["falsenodeids"]], members, strict=True):
            self._node(tree, link, "BRANCH_EQ", values=float(member), **{**branch, "falsenodeids": following})
        return spare + len(members) - 1

    def _node(self, tree: int, place: int, mode: str, **branch: float) -> None:
        row = {"treeids": tree, "nodeids": place, "modes": mode, **dict.fromkeys(BRANCH, 0), **branch}
        for name, entry in row.items():
            self.nodes.setdefault(name, []).append(entry)

    def _leaf(self, tree: int, place: int, weight: float) -> None:
        for name, entry in {"treeids": tree, "nodeids": place, "ids": 0, "weights": weight}.items():
            self.leaves.setdefault(name, []).append(entry)

    def attributes(self, baseline: float) -> dict[str, Any]:
        """The attributes in the form that the operator takes for its precision.

        In double precision the sum comes in two parts, for `trees.add_halves`: the operator gives float32.
        """
        values = {"nodes_values": list(map(float, self.nodes.pop("values")))}  # 0 for a lone leaf
        weights, base = np.array(self.leaves.pop("weights")), np.array([baseline])
        if self.double:
            bound = abs(baseline) + np.abs(weights).max() * (self.nodes["treeids"][-1] + 1)
            quantum = quantum_up_to(float(bound))
            weights = np.concatenate(halves_of(weights, quantum))
            base = np.concatenate(halves_of(base, quantum))
            for name, entries in self.leaves.items():
                self.leaves[name] = entries + ([1] * len(entries) if name == "ids" else entries)
        values |= {"target_weights": weights.tolist(), "base_values": base.tolist()}
        floats: dict[str, Any] = values
        if self.double:
            onnx_helper = require("onnx.helper", "sklearn")
            floats = {
                f"{name}_as_tensor": onnx_helper.make_tensor(name, TensorProto.DOUBLE, [len(entries)], entries)
                for name, entries in values.items()
            }
        return {
            **floats,
            **{f"nodes_{name}": entries for name, entries in self.nodes.items()},
            **{f"target_{name}": entries for name, entries in self.leaves.items()},
            "n_targets": len(base),
        }


BRANCH = ("featureids", "values", "truenodeids", "falsenodeids", "missing_value_tracks_true")


def _branch(node: Any) -> dict[str, int]:
    return {
        "featureids": int(node["feature_idx"]),
        "truenodeids": int(node["left"]),
        "falsenodeids": int(node["right"]),
        "missing_value_tracks_true": int(node["missing_go_to_left"]),
    }


_inexact_rows: ContextVar[bool] = ContextVar("inexact_rows", default=False)


@contextlib.contextmanager
def for_rows(inexact: bool) -> Iterator[None]:
    """Round thresholds within the context for rows that float32 holds exactly, or for rows that it does not."""
    before = _inexact_rows.set(inexact)
    try:
        yield
    finally:
        _inexact_rows.reset(before)


def float32_threshold(value: float) -> float:
    """The float32 that stands for a double threshold t in `x <= t`, where the model's input is float32.

    * Rows that float32 holds exactly: the greatest float32 not above t. No such row takes another branch.
    * Rows of float64, which a caller rounds to the nearest float32, r: r(t). Rounding is monotonic, so x <= t implies
      r(x) <= r(t), and what is left are rows above t with r(x) = r(t). Rounded down, every row with x = t and
      r(t) > t would take the other branch, and thresholds often are values of the data.
    """
    if not _inexact_rows.get():
        return float32_at_most(value)
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def float32_at_most(value: float) -> float:
    """The greatest float32 that is not above a double: x <= one exactly where x <= the other, for a float32 x."""
    with np.errstate(over="ignore"):
        nearest = np.float32(value)
        # As floats of Python: NumPy would round the double before comparing it.
        return float(np.nextafter(nearest, np.float32(-np.inf)) if float(nearest) > value else nearest)


def _members(bits: NDArray[np.uint32]) -> list[int]:
    return [32 * word + bit for word, value in enumerate(bits) for bit in range(32) if int(value) >> bit & 1]


# -- The graph --------------------------------------------------------------------------------------------------


def _raw(scope: Any, operator: Any, container: Any) -> tuple[Graph, str, int]:
    """The sum of all trees: the name of a tensor [batch, targets], and its element type."""
    model = operator.raw_operator
    double = is_double(operator)
    element = TensorProto.DOUBLE if double else TensorProto.FLOAT
    graph = Graph(scope, container)
    rows = _encoded(graph, operator, model, element)
    sums = []
    # An operator a target is faster than one for all.
    for predictors, base in zip(
        zip(*model._predictors, strict=True), np.ravel(model._baseline_prediction), strict=True
    ):
        trees = Trees(double)
        for place, predictor in enumerate(predictors):
            trees.add(predictor, place)
        raw = graph.node("TreeEnsembleRegressor", rows, domain=ML, **trees.attributes(float(base)))
        sums.append(add_halves(graph, raw, 1) if double else raw)
    return graph, sums[0] if len(sums) == 1 else graph.node("Concat", sums, axis=1), element


def _encoded(graph: Graph, operator: Any, model: Any, element: int) -> str:
    """The matrix that the trees read: categories, encoded, before the numbers, as at training."""
    encoder = model._preprocessor
    if encoder is None:
        wide = [graph.node("Cast", value.full_name, to=element) for value in operator.inputs]
        return wide[0] if len(wide) == 1 else graph.node("Concat", wide, axis=1)
    columns = _columns(graph, operator, model)
    places = encoder._transformer_to_input_indices
    ordinal = encoder.named_transformers_["encoder"]
    encoded = [
        graph.node("Cast", _category(graph, columns[place], known), to=element)
        for place, known in zip(places["encoder"], ordinal.categories_, strict=True)
    ]
    numbers = [graph.node("Cast", columns[place][0], to=element) for place in places["numerical"]]
    return graph.node("Concat", [*encoded, *numbers], axis=1)


def _columns(graph: Graph, operator: Any, model: Any) -> list[tuple[str, Any]]:
    """Every raw column as a tensor [batch, 1], with its skl2onnx type."""
    if len(operator.inputs) == model.n_features_in_:
        return [(value.full_name, value.type) for value in operator.inputs]
    if len(operator.inputs) > 1:
        raise ConversionError(
            f"{type(model).__name__} with categories takes one matrix, or one input for each of its "
            f"{model.n_features_in_} columns, not {len(operator.inputs)} inputs."
        )
    matrix = operator.inputs[0]
    return [
        (
            graph.node("Gather", [matrix.full_name, graph.constant(TensorProto.INT64, [place])], axis=1),
            matrix.type,
        )
        for place in range(model.n_features_in_)
    ]


def _category(graph: Graph, column: tuple[str, Any], known: NDArray[Any]) -> str:
    """A category's position among the known ones, NaN for a missing or unknown one."""
    types = require("skl2onnx.common.data_types", "sklearn")
    name, kind = column
    places = [place for place, value in enumerate(known.tolist()) if not is_missing(value)]
    keys = [known[place] for place in places]
    attrs: dict[str, Any] = {"values_floats": [float(place) for place in places], "default_float": np.nan}
    if isinstance(kind, types.StringTensorType):
        attrs["keys_strings"] = [str(key) for key in keys]
    elif isinstance(kind, types.Int64TensorType):
        attrs["keys_int64s"] = [int(key) for key in keys]
    else:
        attrs["keys_floats"] = [float(key) for key in keys]
        name = graph.node("Cast", name, to=TensorProto.FLOAT)
    return graph.node("LabelEncoder", name, domain=ML, **attrs)


def _convert_regressor(scope: Any, operator: Any, container: Any) -> None:
    graph, raw, _ = _raw(scope, operator, container)
    link = type(operator.raw_operator._loss.link).__name__
    kinds = {"IdentityLink": "Identity", "LogLink": "Exp"}
    if link not in kinds:
        raise ConversionError(f"HistGradientBoostingRegressor with the link {link} has no conversion to ONNX.")
    graph.node(kinds[link], raw, operator.outputs[0].full_name)


def _convert_classifier(scope: Any, operator: Any, container: Any) -> None:
    model = operator.raw_operator
    graph, raw, element = _raw(scope, operator, container)
    binary = model.n_trees_per_iteration_ == 1
    if binary:
        zero = graph.constant(element, [0.0])
        place = graph.node("Cast", graph.node("Greater", [raw, zero]), to=TensorProto.INT64)
        negated = graph.node("Neg", raw)
        both = [negated, raw]
    else:
        place = graph.node("ArgMax", raw, axis=1, keepdims=1)
    classes = model.classes_
    if classes.dtype.kind in "OUS":
        labels = graph.constant(TensorProto.STRING, [str(label) for label in classes])
    else:
        labels = graph.constant(TensorProto.INT64, [int(label) for label in classes])
    flat = graph.node("Reshape", [place, graph.constant(TensorProto.INT64, [-1])])
    graph.node("Gather", [labels, flat], operator.outputs[0].full_name, axis=0)
    target = operator.outputs[1].full_name
    if container.get_options(model, {"raw_scores": False})["raw_scores"]:
        if binary:
            graph.node("Concat", both, target, axis=1)
        else:
            graph.node("Identity", raw, target)
    elif binary:
        graph.node("Concat", [graph.node("Sigmoid", side) for side in both], target, axis=1)
    else:
        graph.node("Softmax", raw, target, axis=1)


def _classifier_shapes(operator: Any) -> None:
    types = require("skl2onnx.common.data_types", "sklearn")
    model = operator.raw_operator
    rows = operator.inputs[0].get_first_dimension()
    label = types.StringTensorType if model.classes_.dtype.kind in "OUS" else types.Int64TensorType
    operator.outputs[0].set_type(label([rows]))
    operator.outputs[1].set_type(number_type(operator)([rows, len(model.classes_)]))


def _regressor_shapes(operator: Any) -> None:
    operator.outputs[0].set_type(number_type(operator)([operator.inputs[0].get_first_dimension(), 1]))
