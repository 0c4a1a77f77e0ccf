"""Converting XGBoost, LightGBM and CatBoost, alone and as steps of a scikit-learn pipeline.

All three are registered with skl2onnx, which then converts them wherever they stand. The trees come from
onnxmltools and from CatBoost's own exporter; what these leave undone is done here.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from onnxtool.converters.boosting.by_class import LINKS, split_by_class, text_of
from onnxtool.converters.boosting.categories import of_columns
from onnxtool.converters.boosting.oblivious import tables_of, write_sums
from onnxtool.converters.framework import Conversion, ConvertOptions, Framework
from onnxtool.converters.sklearn import BOOSTING, convert_registered
from onnxtool.converters.sklearn.choosing import in_given_dtypes, with_inputs
from onnxtool.converters.sklearn.graph import Graph, is_double
from onnxtool.converters.sklearn.hist_gradient_boosting import float32_threshold, for_rows
from onnxtool.errors import ConversionError, require
from onnxtool.models import boosting
from onnxtool.models.onnx.artifact import first_line
from onnxtool.models.signature import Tensors
from onnxtool.models.source import LoadOptions, SourceModel
from onnxtool.models.versions import find_releases
from onnxtool.reports.model import SavedBy


class BoostingFramework(Framework):
    """Models of XGBoost (.json, .ubj), LightGBM (.txt) and CatBoost (.cbm), and their live objects."""

    name = "boosting"
    extra = "boosting"
    max_opset = 22
    default_opset = 20

    def recognises(self, source: str) -> bool:
        """Whether it is a model file of one of the three libraries."""
        path = Path(source)
        return path.is_file() and boosting.recognised(path) is not None

    def owns(self, model: object) -> bool:
        """Whether it is a booster or a wrapper of one of the three libraries."""
        names = {base.__name__ for base in type(model).__mro__}
        known = {"Booster", "XGBModel", "LGBMModel", "CatBoost"}
        return type(model).__module__.partition(".")[0] in BOOSTING and bool(names & known)

    def load(self, source: str, options: LoadOptions) -> object:
        """Open a model file; none of these formats can hold code."""
        return boosting.load(Path(source))

    def saved_by(self, source: str, model: object) -> list[SavedBy]:
        """XGBoost's release, or the number of LightGBM's format; CatBoost's files name none."""
        return find_releases(lambda: Path(source).open("rb"))

    def wrap(self, model: object, options: LoadOptions) -> SourceModel:
        """Wrap a boosted ensemble as a function from a matrix to named tensors."""
        return boosting.BoostingModel(model, options)

    def convert(self, source: SourceModel, example: Tensors, options: ConvertOptions) -> Conversion:
        """Convert through the converters that `register_steps` registers."""
        require("onnxmltools", self.extra)
        convert = partial(convert_registered, opset=options.opset or self.default_opset)
        fitted = with_inputs(source, options.inputs)
        with for_rows(options.inexact_rows):
            return of_columns(fitted, convert) if fitted.categories else in_given_dtypes(fitted, convert)

    def register_steps(self) -> None:
        """Make the libraries that the model has imported known to skl2onnx."""
        _register()


FRAMEWORK = BoostingFramework()

SPARSE = {"zero_is_missing": [True, False]}
ZIPMAP = {"zipmap": [True, False, "columns"], "nocl": [True, False], "output_class_labels": [False, True]}


def _register() -> None:
    if find_spec("onnxmltools") is None:
        return
    shapes = require("skl2onnx.common.shape_calculator", "boosting")
    classifier = shapes.calculate_linear_classifier_output_shapes
    regressor = shapes.calculate_linear_regressor_output_shapes
    update = require("skl2onnx", "boosting").update_registered_converter
    if "xgboost" in sys.modules:
        xgboost = require("xgboost", "boosting")
        for kind in (xgboost.XGBClassifier, xgboost.XGBRFClassifier):
            update(kind, f"XGBoost{kind.__name__}", classifier, _convert_xgboost, options=ZIPMAP | SPARSE)
        for kind in (xgboost.XGBRegressor, xgboost.XGBRFRegressor, xgboost.XGBRanker):
            update(kind, f"XGBoost{kind.__name__}", regressor, _convert_xgboost, options=SPARSE)
    if "lightgbm" in sys.modules:
        lightgbm = require("lightgbm", "boosting")
        for kind in (lightgbm.LGBMClassifier, boosting.LightGBMBoosterClassifier):
            update(
                kind, f"LightGBM{kind.__name__}", classifier, _convert_lightgbm,
                parser=_parse_classifier, options=ZIPMAP,
            )  # fmt: skip
        for kind in (lightgbm.LGBMRegressor, lightgbm.LGBMRanker, boosting.LightGBMBooster):
            update(kind, f"LightGBM{kind.__name__}", regressor, _convert_lightgbm, options={"split": None})
    if "catboost" in sys.modules:
        catboost = require("catboost", "boosting")
        update(
            catboost.CatBoostClassifier, "CatBoostClassifier", classifier, _convert_catboost,
            parser=_parse_classifier, options=ZIPMAP,
        )  # fmt: skip
        for kind in (catboost.CatBoostRegressor, catboost.CatBoostRanker):
            update(kind, f"CatBoost{kind.__name__}", regressor, _convert_catboost)


def _parse_classifier(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    """Declare a label and probabilities; skl2onnx does so by itself for scikit-learn's own classifiers only."""
    types = require("skl2onnx.common.data_types", "boosting")
    aliases = require("skl2onnx", "boosting").get_model_alias
    operator = scope.declare_local_operator(aliases(type(model)), model)
    operator.inputs = inputs
    operator.outputs.append(scope.declare_local_variable("label", types.Int64TensorType()))
    operator.outputs.append(scope.declare_local_variable("probabilities", types.FloatTensorType()))
    return operator.outputs


def _convert_xgboost(scope: Any, operator: Any, container: Any) -> None:
    upstream = require("onnxmltools.convert.xgboost.operator_converters.XGBoost", "boosting")
    learner = json.loads(operator.raw_operator.get_booster().save_config())["learner"]
    kind = learner["gradient_booster"]["name"]
    if kind != "gbtree":
        raise ConversionError(f"XGBoost's booster {kind!r} has no conversion to ONNX, only 'gbtree' has.")
    if int(learner["learner_model_param"]["num_target"]) > 1:
        raise ConversionError("XGBoost with several targets has no conversion to ONNX. Fit one model a target.")
    zeros = container.get_options(operator.raw_operator, {"zero_is_missing": False})["zero_is_missing"]
    with _single_rows(scope, operator, container), _without_feature_names(operator.raw_operator.get_booster()):
        before = operator.inputs
        if zeros:
            operator.inputs = [_zeros_missing(scope, container, before[0])]
        already = len(container.nodes)
        upstream.convert_xgboost(scope, operator, container)
        together = int(learner["gradient_booster"]["gbtree_model_param"]["num_parallel_tree"])
        if together > 1:
            _give_classes_in_turn(container.nodes[already:], together)
        _split_by_class(scope, container, already)
        operator.inputs = before


@contextlib.contextmanager
def _single_rows(scope: Any, operator: Any, container: Any) -> Iterator[None]:
    """Make upstream's converter take float32 rows: XGBoost and CatBoost round float64 rows to float32 as well."""
    before = operator.inputs
    if is_double(operator):
        types = require("skl2onnx.common.data_types", "boosting")
        rows = scope.declare_local_variable("single", types.FloatTensorType(list(before[0].type.shape)))
        Graph(scope, container).node("Cast", before[0].full_name, rows.full_name, to=TensorProto.FLOAT)
        operator.inputs = [rows]
    with _double_numbers(scope, operator, container):
        yield
    operator.inputs = before


@contextlib.contextmanager
def _double_numbers(scope: Any, operator: Any, container: Any) -> Iterator[None]:
    """Cast the numbers that upstream's converter gives to double precision, where they are declared so."""
    types = require("skl2onnx.common.data_types", "boosting")
    already = len(container.nodes)
    yield
    numbers = operator.outputs[-1]
    if isinstance(numbers.type, types.DoubleTensorType):
        name = numbers.full_name
        single = scope.get_unique_variable_name(f"{name}_single")
        for node in container.nodes[already:]:
            node.output[:] = [single if output == name else output for output in node.output]
        # Not through `add_node`, which takes the name for given already.
        container.nodes.append(onnx.helper.make_node("Cast", [single], [name], to=TensorProto.DOUBLE))


def _zeros_missing(scope: Any, container: Any, rows: Any) -> Any:
    """XGBoost takes what a sparse matrix leaves out for missing, not for zero."""
    graph = Graph(scope, container)
    zero = graph.constant(TensorProto.FLOAT, [0.0])
    missing = graph.constant(TensorProto.FLOAT, [np.nan])
    replaced = scope.declare_local_variable("zeros_missing", rows.type)
    numbers = graph.node("Cast", rows.full_name, to=TensorProto.FLOAT)
    graph.node("Where", [graph.node("Equal", [numbers, zero]), missing, numbers], replaced.full_name)
    return replaced


@contextlib.contextmanager
def _without_feature_names(booster: Any) -> Iterator[None]:
    """onnxmltools takes a feature's number from its name, and fails on the names of a data frame."""
    names = booster.feature_names
    booster.feature_names = None
    try:
        yield
    finally:
        booster.feature_names = names


def _convert_lightgbm(scope: Any, operator: Any, container: Any) -> None:
    upstream = require("onnxmltools.convert.lightgbm.operator_converters.LightGbm", "boosting")
    places: list[float] | None = [] if is_double(operator) else None
    with _prepared(operator.raw_operator, places), _double_numbers(scope, operator, container):
        already = len(container.nodes)
        upstream.convert_lightgbm(scope, operator, container)
    text = operator.raw_operator.booster_.model_to_string(num_iteration=1)
    one_against_all = "\nobjective=multiclassova" in text
    for node in container.nodes[already:]:
        if not node.op_type.startswith("TreeEnsemble"):
            continue
        if places is not None:
            _compare_doubles(node, places)
        if one_against_all:  # upstream takes it for a softmax over all
            next(entry for entry in node.attribute if entry.name == "post_transform").s = b"LOGISTIC"
    _split_by_class(scope, container, already)


def _give_classes_in_turn(nodes: Sequence[onnx.NodeProto], together: int) -> None:
    """Assign so many consecutive trees to each class: upstream changes the class after each one."""
    for node in nodes:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "TreeEnsembleClassifier" and (labels := attributes["classlabels_int64s"].ints)[2:]:
            trees = np.array(attributes["class_treeids"].ints)
            attributes["class_ids"].ints[:] = (trees // together % len(labels)).tolist()


def _split_by_class(scope: Any, container: Any, already: int) -> None:
    for node in list(container.nodes[already:]):
        if node.op_type == "TreeEnsembleClassifier":
            split_by_class(Graph(scope, container), node)


def _compare_doubles(node: onnx.NodeProto, thresholds: Sequence[float]) -> None:
    """Make trees compare double rows with double thresholds: theirs are places in a list of doubles."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    modes = attributes["nodes_modes"].strings
    for name in ("nodes_values", "class_weights", "target_weights", "base_values"):
        if name not in attributes:
            continue
        numbers = list(attributes[name].floats)
        if name == "nodes_values":
            pairs = zip(numbers, modes, strict=True)
            numbers = [thresholds[int(value)] if mode == b"BRANCH_LEQ" else value for value, mode in pairs]
        tensor = onnx.helper.make_tensor(name, TensorProto.DOUBLE, [len(numbers)], numbers)
        node.attribute.remove(attributes[name])
        node.attribute.append(onnx.helper.make_attribute(f"{name}_as_tensor", tensor))


@contextlib.contextmanager
def _prepared(model: Any, places: list[float] | None) -> Iterator[None]:
    """Give a LightGBM model a booster whose trees upstream converts exactly; see `prepared_text`."""
    lightgbm = require("lightgbm", "boosting")
    place = "booster_" if isinstance(model, boosting.LightGBMBooster) else "_Booster"
    before = {name: getattr(model, name) for name in (place, "boosting_type")}
    setattr(model, place, lightgbm.Booster(model_str=prepared_text(before[place].model_to_string(), places)))
    model.boosting_type = "gbdt"  # averages are gone; upstream would divide by a hundred
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(model, name, value)


def prepared_text(text: str, places: list[float] | None = None) -> str:
    """Rewrite a LightGBM model so that a literal reading of its trees agrees with LightGBM on float32 rows.

    * LightGBM compares x <= t for a double t. Over a float32 input t is rounded as `float32_threshold` says.
    * A number next to zero counts as zero, so a threshold next to zero moves beyond all of them.
    * Trained without missing values, it takes NaN for 0; the default direction becomes that of 0.
    * A random forest averages: its leaves are divided by the number of trees.

    Args:
        text: The model.
        places: For float64 rows, an empty list: it gets the thresholds, which stay double, and the text their
            places in it, since upstream would round the thresholds.

    Raises:
        ConversionError: zeros count as missing, which ONNX's trees cannot say.
    """
    rounds = 1
    if "\naverage_output\n" in text:
        each = int(re.findall(r"^num_tree_per_iteration=(\d+)$", text, re.MULTILINE)[0])
        rounds = len(re.findall(r"^Tree=\d+$", text, re.MULTILINE)) // each
    lines = []
    thresholds: list[float] = []
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if name == "threshold":
            thresholds = [float(number) for number in value.split()]
        elif name == "decision_type":  # comes after the thresholds
            kinds = [int(kind) for kind in value.split()]
            changed = [_decision(kind, mark) for kind, mark in zip(kinds, thresholds, strict=True)]
            lines.append(f"decision_type={' '.join(map(str, changed))}")
            for place, kind in enumerate(kinds):
                if not kind & CATEGORICAL:
                    thresholds[place] = _threshold(thresholds[place], np.float32 if places is None else np.float64)
                    if places is not None:
                        places.append(thresholds[place])
                        thresholds[place] = len(places) - 1
            lines.append(f"threshold={' '.join(map(repr, thresholds))}")
        elif name == "leaf_value" and rounds > 1:
            lines.append(f"leaf_value={' '.join(repr(float(number) / rounds) for number in value.split())}")
        elif name not in ("tree_sizes", "average_output"):  # sizes in bytes, which have changed, may be left out
            lines.append(line)
    return "\n".join(lines) + "\n"


ZERO = float(np.float32(1e-35))
"""LightGBM's kZeroThreshold: it reads a number that is no further from zero as zero."""


def _threshold(value: float, dtype: type[np.floating[Any]]) -> float:
    if abs(value) <= ZERO:
        return ZERO if value >= 0 else float(np.nextafter(dtype(-ZERO), dtype(-np.inf)))
    return float32_threshold(value) if dtype is np.float32 else value


CATEGORICAL, DEFAULT_LEFT, ZERO_IS_MISSING = 1, 2, 4
"""Bits of LightGBM's decision_type; the third and fourth say what is missing: nothing, zero or NaN."""


def _decision(kind: int, threshold: float) -> int:
    if kind & ZERO_IS_MISSING:
        raise ConversionError(
            "LightGBM with zero_as_missing has no conversion to ONNX. Mark what is missing by NaN."
        )
    if kind & CATEGORICAL or kind >> 2:
        return kind
    return kind | DEFAULT_LEFT if threshold >= 0 else kind & ~DEFAULT_LEFT


def _convert_catboost(scope: Any, operator: Any, container: Any) -> None:
    model = operator.raw_operator
    if model.get_cat_feature_indices():
        raise ConversionError(
            f"{type(model).__name__} has categorical features, which CatBoost's exporter to ONNX does not know. "
            "Encode them as numbers before, with OneHotEncoder or OrdinalEncoder."
        )
    trees = next(node for node in _exported(model).graph.node if node.op_type.startswith("TreeEnsemble"))
    if len(operator.outputs) == 1 and trees.op_type != "TreeEnsembleRegressor":
        raise ConversionError("CatBoost with several targets has no conversion to ONNX. Fit one model a target.")
    attrs = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in trees.attribute}
    if str(model.get_all_params().get("loss_function", "")).startswith("MultiClassOneVsAll"):
        attrs["post_transform"] = b"LOGISTIC"  # the exporter takes it for a softmax over all
    exponent = len(operator.outputs) == 1 and model._get_default_prediction_type() == "Exponent"  # as predict does
    with _single_rows(scope, operator, container):
        outputs = [value.full_name for value in operator.outputs]
        last = scope.get_unique_variable_name("raw") if exponent else outputs[-1]
        if not _write_tables(Graph(scope, container), operator.inputs[0].full_name, attrs, [*outputs[:-1], last]):
            container.add_node(
                trees.op_type,
                [operator.inputs[0].full_name],
                [*outputs[:-1], last],
                op_domain="ai.onnx.ml",
                op_version=1,
                name=scope.get_unique_operator_name(trees.op_type),
                **attrs,
            )
        if exponent:
            container.add_node("Exp", [last], outputs[-1:], name=scope.get_unique_operator_name("Exp"))


def _write_tables(graph: Graph, rows: str, attributes: dict[str, Any], outputs: Sequence[str]) -> bool:
    """Write an ensemble as tables, where its trees are such; see `oblivious`."""
    labels = attributes.get("classlabels_int64s") or attributes.get("classlabels_strings") or []
    targets = len(labels) or attributes["n_targets"]
    link = LINKS.get(attributes.get("post_transform", b"NONE"))
    tables = tables_of(attributes, targets) if link else None
    if tables is None:
        return False
    base = np.array(attributes.get("base_values") or np.zeros(targets), dtype=np.float32)
    sums = write_sums(graph, rows, tables, base)
    if labels:
        graph.labels(sums, text_of(labels), outputs[0])
    axis: dict[str, Any] = {"axis": 1} if link == "Softmax" else {}
    graph.node(str(link), sums, outputs[-1], **axis)
    return True


def _exported(model: Any) -> onnx.ModelProto:
    """The graph that CatBoost's own exporter writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        if getattr(model, "classes_", np.empty(0)).dtype == bool:
            model = _with_integer_labels(model, path)
        try:
            model.save_model(str(path), format="onnx")
        except require("catboost", "boosting").CatBoostError as error:
            raise ConversionError(
                f"CatBoost's exporter to ONNX refuses the {type(model).__name__}: {first_line(error)}"
            ) from error
        return onnx.load(path)


def _with_integer_labels(model: Any, path: Path) -> Any:
    """The exporter knows labels that are whole numbers or text; truth values become 0 and 1."""
    model.save_model(str(path), format="json")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model_info"]["class_params"] |= {"class_label_type": "Integer", "class_names": [0, 1]}
    path.write_text(json.dumps(content), encoding="utf-8", newline="\n")
    return type(model)().load_model(str(path), format="json")
