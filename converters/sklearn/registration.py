"""Registering own converters with skl2onnx: the outputs that each kind of estimator has, and their shapes.

A converter here is a function of the rows, a `Value` in double precision, and of the fitted estimator. What it
returns is given in the precision of the rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from onnxtool.converters.sklearn.graph import ML, Graph, is_double, number_type
from onnxtool.converters.sklearn.values import Frame, Input, Value
from onnxtool.errors import ConversionError, require
from onnxtool.models.signature import BATCH, TensorSpec
from onnxtool.models.sklearn.lineage import is_missing

OPTIONS: dict[str, list[Any]] = {
    "zipmap": [True, False, "columns"],
    "nocl": [True, False],
    "output_class_labels": [False, True],
    "raw_scores": [True, False],
}
"""Options of a classifier's converter that other converters may set."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A classifier's output: a confidence for each class and, where it differs, the chosen class.

    Attributes:
        confidence: Probabilities or scores, [batch, classes], or [batch, 1] for the scores of two classes.
        place: Positions of the labels, [batch], or None for the greatest confidence.
    """

    confidence: Value
    place: Value | None = None


def transformer(
    path: str,
    convert: Callable[[Value, Any], Value],
    only_double: bool = False,
    also_for: Callable[[Any], bool] | None = None,
) -> None:
    """Register the converter of a transformer, which gives a matrix of numbers.

    Args:
        path: The class, as in "impute.SimpleImputer".
        convert: From rows and estimator to a matrix.
        only_double: Whether rows that are not float64 are left to skl2onnx's converter.
        also_for: Estimators that it converts whatever the rows are, where others are left to skl2onnx's converter.
    """

    def write(graph: Graph, operator: Any, model: Any) -> None:
        _give(convert(_rows(graph, operator), model), operator, 0)

    if also_for is None:
        _register(path, write, _transformer_shapes, ("variable",), only_double=only_double)
        return
    chosen = also_for
    _register_in_part(
        _class(path),
        write,
        _transformer_shapes,
        None,
        lambda operator: is_double(operator) or chosen(operator.raw_operator),
    )


@dataclass(frozen=True, slots=True)
class Column:
    """One column that an encoder reads.

    Attributes:
        value: Array of shape [batch, 1].
        text: Whether it holds text; else double precision.
    """

    value: Value
    text: bool

    def positions(self, categories: Any) -> Value:
        """The position of each value among the categories, their number for one that is not among them; [batch]."""
        count = len(categories)
        if self.text:
            known = ["" if is_missing(one) else str(one) for one in categories]
            found = self.value.apply(
                "LabelEncoder",
                domain=ML,
                keys_strings=known,
                values_int64s=list(range(count)),
                default_int64=count,
            )
            return found.reshape(-1)
        numbers = np.array([np.nan if is_missing(one) else float(one) for one in categories])
        same = self.value.equals(numbers[~np.isnan(numbers)].reshape(1, -1)).double()
        missing = np.flatnonzero(np.isnan(numbers))
        if len(missing):  # the last category
            same = same.hstack(self.value.apply("IsNaN").double())
        none = same.sum() * 0.0 + 0.5
        return same.hstack(none).first_greatest()


def encoder(
    path: str, convert: Callable[[list[Column], Any], Value], only_for: Callable[[Any], bool] | None = None
) -> None:
    """Register the converter of a transformer that reads columns of numbers or of text.

    Args:
        path: The class, as in "preprocessing.TargetEncoder".
        convert: From columns and estimator to a matrix.
        only_for: The estimators that it converts; others are left to skl2onnx's converter. None for all.
    """

    def write(graph: Graph, operator: Any, model: Any) -> None:
        _give(convert(columns_given(graph, operator), model), operator, 0)

    if only_for is None:
        _register(path, write, _transformer_shapes, ("variable",))
        return
    chosen = only_for
    _register_in_part(
        _class(path), write, _transformer_shapes, None, lambda operator: chosen(operator.raw_operator)
    )


def columns_given(graph: Graph, operator: Any) -> list[Column]:
    """The columns of all inputs of an operator, in their order."""
    types = require("skl2onnx.common.data_types", "sklearn")
    found = []
    for variable in operator.inputs:
        text = isinstance(variable.type, types.StringTensorType)
        whole = Value(graph, variable.full_name, not is_double(operator))
        whole = whole if text else whole.double()
        found += [Column(whole.columns([place]), text) for place in range(variable.type.shape[1])]
    return found


def regressor(path: str, convert: Callable[[Value, Any], Value]) -> None:
    """Register the converter of a regressor, which gives a matrix, [batch, targets]."""

    def write(graph: Graph, operator: Any, model: Any) -> None:
        _give(convert(_rows(graph, operator), model), operator, 0)

    _register(path, write, _regressor_shapes, ("variable",))


def classifier(
    path: str,
    convert: Callable[[Value, Any], Decision],
    only_double: bool = False,
) -> None:
    """Register the converter of a classifier; see `transformer`."""

    def write(graph: Graph, operator: Any, model: Any) -> None:
        decision = convert(_rows(graph, operator), model)
        place = decision.confidence.first_greatest() if decision.place is None else decision.place.reshape(-1)
        classes = classes_of(operator)
        known = classes.astype(str).astype(object) if classes.dtype.kind in "OUS" else classes.astype(np.int64)
        place.of(known).at(place).apply("Identity", output=operator.outputs[0].full_name)
        if len(operator.outputs) > 1:
            _give(decision.confidence, operator, 1)

    _register(path, write, _classifier_shapes, ("label", "probabilities"), OPTIONS, only_double=only_double)


def multilabel(path: str, convert: Callable[[Value, Any], tuple[Value, Value]]) -> None:
    """Register the converter of a classifier of several targets of two classes each.

    Labels, and probabilities of the second class, are [batch, targets] each.
    """

    def write(graph: Graph, operator: Any, model: Any) -> None:
        label, confidence = convert(_rows(graph, operator), model)
        label.apply("Identity", output=operator.outputs[0].full_name)
        _give(confidence, operator, 1)

    def shapes(operator: Any) -> None:
        types = require("skl2onnx.common.data_types", "sklearn")
        shape = [_count(operator), len(operator.raw_operator.classes_)]
        operator.outputs[0].set_type(types.Int64TensorType(shape))
        operator.outputs[1].set_type(number_type(operator)(shape))

    _register(path, write, shapes, ("label", "probabilities"), OPTIONS)


def targets(path: str, convert: Callable[[Value, Any], list[tuple[Value, Value | None]]]) -> None:
    """Register the converter of a classifier of several targets: a label, [batch], and probabilities of each.

    Its outputs are the labels, [batch, targets], and the probabilities, [targets, batch, classes], whose last columns
    are 0 for a target of fewer classes than another.
    """

    def write(graph: Graph, operator: Any, model: Any) -> None:
        answers = convert(_rows(graph, operator), model)
        labels = [label.reshape(-1, 1) for label, _ in answers]
        labels[0].hstack(*labels[1:]).apply("Identity", output=operator.outputs[0].full_name)
        found = [probabilities for _, probabilities in answers if probabilities is not None]
        if len(found) < len(answers):
            return
        width = max(map(len, model.classes_))
        padded = [
            one.apply("Pad", np.array([0, 0, 0, width - len(classes)])).reshape(1, -1, width)
            for one, classes in zip(found, model.classes_, strict=True)
        ]
        _give(padded[0].hstack(*padded[1:], axis=0), operator, 1)

    def shapes(operator: Any) -> None:
        types = require("skl2onnx.common.data_types", "sklearn")
        classes = operator.raw_operator.classes_
        kinds = {np.asarray(one).dtype.kind in "OUS" for one in classes}
        if len(kinds) > 1:
            raise ConversionError(
                "MultiOutputClassifier over labels of text and of numbers has no conversion to ONNX. Fit one model "
                "for each."
            )
        label = types.StringTensorType if kinds == {True} else types.Int64TensorType
        operator.outputs[0].set_type(label([_count(operator), len(classes)]))
        shape = [len(classes), _count(operator), max(map(len, classes))]
        operator.outputs[1].set_type(number_type(operator)(shape))

    _register(path, write, shapes, ("label", "probabilities"), OPTIONS)


def clusterer(
    path: str, convert: Callable[[Value, Any], tuple[Value, Value | None]], only_double: bool = False
) -> None:
    """Register the converter of a clusterer: labels, [batch], and what else it gives, or None."""

    def write(graph: Graph, operator: Any, model: Any) -> None:
        label, others = convert(_rows(graph, operator), model)
        label.whole().reshape(-1).apply("Identity", output=operator.outputs[0].full_name)
        if others is not None and len(operator.outputs) > 1:
            _give(others, operator, 1)

    kind = _class(path)
    outputs = ("label", "scores") if hasattr(kind, "transform") or hasattr(kind, "predict_proba") else ("label",)
    _register(path, write, _label_shapes, outputs, only_double=only_double)


def detector(path: str, convert: Callable[[Value, Any], tuple[Value, Value]]) -> None:
    """Register the converter of an outlier detector: whether a row is inside, and its score, [batch, 1] each."""

    def write(graph: Graph, operator: Any, model: Any) -> None:
        inside, score = convert(_rows(graph, operator), model)
        label = inside.where(np.array([1]), np.array([-1]))
        label.apply("Identity", output=operator.outputs[0].full_name)
        _give(score, operator, 1)

    _register(path, write, _label_shapes, ("label", "scores"))


def classes_of(operator: Any) -> Any:
    """The labels, or their positions where the operator's options ask for them."""
    module = require("skl2onnx.common.utils_classifier", "sklearn")
    return np.asarray(module.get_label_classes(operator.scope_inst, operator.raw_operator))


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(require(f"sklearn.{module}", "sklearn"), name)


def _rows(graph: Graph, operator: Any) -> Value:
    """All inputs side by side, in double precision; of several, which may hold text, a `Frame`."""
    narrow = not is_double(operator)
    given = [Value(graph, value.full_name, narrow) for value in operator.inputs]
    if len(given) == 1:
        return given[0].double()
    inputs = [Input(_spec(variable), variable.full_name) for variable in operator.inputs]
    if any(one.spec.dtype == "string" for one in inputs):
        return Frame(given[0], inputs)
    first, *others = (one.double() for one in given)
    return Frame(first.hstack(*others), inputs)


def _spec(variable: Any) -> TensorSpec:
    types = require("skl2onnx.common.data_types", "sklearn")
    dtypes = {
        types.DoubleTensorType: "float64",
        types.Int64TensorType: "int64",
        types.Int32TensorType: "int32",
        types.BooleanTensorType: "bool",
        types.StringTensorType: "string",
    }
    return TensorSpec(
        variable.raw_name, dtypes.get(type(variable.type), "float32"), (BATCH, variable.type.shape[1])
    )


def _give(value: Value, operator: Any, place: int) -> None:
    element = TensorProto.DOUBLE if is_double(operator) else TensorProto.FLOAT
    value.apply("Cast", output=operator.outputs[place].full_name, to=element)


def _register(
    path: str,
    write: Callable[[Graph, Any, Any], None],
    shapes: Callable[[Any], None],
    outputs: tuple[str, ...],
    options: dict[str, list[Any]] | None = None,
    *,
    only_double: bool = False,
) -> None:
    kind = _class(path)
    alias = f"Sklearn{kind.__name__}"
    types = require("skl2onnx.common.data_types", "sklearn")
    if only_double:
        _register_in_part(kind, write, shapes, options, is_double)
        return

    def converter(scope: Any, operator: Any, container: Any) -> None:
        write(Graph(scope, container), operator, operator.raw_operator)

    def parser(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
        operator = scope.declare_local_operator(alias, model)
        operator.inputs = inputs
        for name in outputs:
            number = types.Int64TensorType if name == "label" else number_type(operator)
            operator.outputs.append(scope.declare_local_variable(name, number()))
        return operator.outputs

    update = require("skl2onnx", "sklearn").update_registered_converter
    update(kind, alias, shapes, converter, parser=parser, options=options)


def _register_in_part(
    kind: Any,
    write: Callable[[Graph, Any, Any], None],
    shapes: Callable[[Any], None],
    options: dict[str, list[Any]] | None,
    ours: Callable[[Any], bool],
) -> None:
    """Take our converter for the operators that `ours` says, else skl2onnx's, whose options stay allowed."""
    registered = require("skl2onnx.common._registration", "sklearn")
    alias = require("skl2onnx._supported_operators", "sklearn").sklearn_operator_name_map[kind]
    theirs, their_shapes = registered.get_converter(alias), registered.get_shape_calculator(alias)

    def converter(scope: Any, operator: Any, container: Any) -> None:
        if ours(operator):
            write(Graph(scope, container), operator, operator.raw_operator)
        else:
            theirs(scope, operator, container)

    def shape(operator: Any) -> None:
        (shapes if ours(operator) else their_shapes)(operator)

    allowed = theirs.get_allowed_options() or {}
    merged = {**(options or {}), **allowed} if allowed or options else None
    own = f"Sklearn{kind.__name__}"
    update = require("skl2onnx", "sklearn").update_registered_converter
    update(kind, own, shape, converter, options=merged)


def _count(operator: Any) -> Any:
    return operator.inputs[0].get_first_dimension()


def _transformer_shapes(operator: Any) -> None:
    width = None
    with contextlib.suppress(Exception):  # an estimator that cannot make names up
        width = len(operator.raw_operator.get_feature_names_out())
    operator.outputs[0].set_type(number_type(operator)([_count(operator), width]))


def _regressor_shapes(operator: Any) -> None:
    model = operator.raw_operator
    targets = getattr(model, "n_outputs_", None) or _targets(model)
    operator.outputs[0].set_type(number_type(operator)([_count(operator), targets]))


def _targets(model: Any) -> int:
    if hasattr(model, "order_") or type(model).__name__ == "MultiOutputRegressor":
        return len(model.estimators_)
    for name in ("coef_", "dual_coef_", "_y"):
        values = getattr(model, name, None)
        if getattr(values, "ndim", 0) == 2 and not hasattr(model, "support_"):
            return int(values.shape[0 if name == "coef_" else 1])  # type: ignore[union-attr]  # an array
    return 1


def _classifier_shapes(operator: Any) -> None:
    types = require("skl2onnx.common.data_types", "sklearn")
    classes = classes_of(operator)
    label = types.StringTensorType if classes.dtype.kind in "OUS" else types.Int64TensorType
    operator.outputs[0].set_type(label([_count(operator)]))
    if len(operator.outputs) > 1:
        operator.outputs[1].set_type(number_type(operator)([_count(operator), None]))


def _label_shapes(operator: Any) -> None:
    types = require("skl2onnx.common.data_types", "sklearn")
    scored = len(operator.outputs) > 1 and hasattr(operator.raw_operator, "decision_function")
    operator.outputs[0].set_type(types.Int64TensorType([_count(operator), 1] if scored else [_count(operator)]))
    if len(operator.outputs) > 1:
        operator.outputs[1].set_type(number_type(operator)([_count(operator), None]))
