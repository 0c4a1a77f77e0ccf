"""Converting scikit-learn estimators and pipelines, through skl2onnx.

Own converters are in this package, one file for each family; `register` makes them known to skl2onnx.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from onnxtool.converters.framework import Conversion, ConvertOptions, Framework, frameworks
from onnxtool.converters.sklearn.custom import custom_steps
from onnxtool.converters.sklearn.graph import ML, ML_OPSET, completed
from onnxtool.converters.sklearn.outputs import (
    describe_contributions,
    merged,
    rename_inputs,
    shape_outputs,
    split_input,
)
from onnxtool.converters.sklearn.scoping import registered
from onnxtool.converters.sklearn.wrappers import inner
from onnxtool.errors import ConversionError, require
from onnxtool.models.onnx.artifact import first_line
from onnxtool.models.safety import pickles
from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.models.sklearn.lineage import VECTORIZERS, sparse_readers, steps
from onnxtool.models.source import LoadOptions, SourceModel
from onnxtool.reports.model import SavedBy

BOOSTING = frozenset({"xgboost", "lightgbm", "catboost"})


class SklearnFramework(Framework):
    """Estimators, pipelines and searches of scikit-learn, from live objects, pickles and skops files."""

    name = "sklearn"
    extra = "sklearn"
    max_opset = 22  # the highest that skl2onnx 1.20 is tested with
    default_opset = 20

    def recognises(self, source: str) -> bool:
        """Whether it is a pickle or a skops file."""
        path = Path(source)
        return path.is_file() and (pickles.is_skops(path) or pickles.is_pickle(path))

    def owns(self, model: object) -> bool:
        """Whether it is an estimator, and none of the boosting libraries'."""
        bases = {f"{base.__module__}.{base.__qualname__}" for base in type(model).__mro__}
        return "sklearn.base.BaseEstimator" in bases and type(model).__module__.partition(".")[0] not in BOOSTING

    def load(self, source: str, options: LoadOptions) -> object:
        """Open a pickle or skops file through the gate of `models.pickles`."""
        require("sklearn", self.extra)
        path = Path(source)
        load = pickles.load_skops if pickles.is_skops(path) else pickles.load
        return load(path, options.trust)

    def saved_by(self, source: str, model: object) -> list[SavedBy]:
        """The releases that saved a file, as its estimators and boosters name them."""
        return pickles.saved_by(Path(source))

    def wrap(self, model: object, options: LoadOptions) -> SourceModel:
        """Wrap an estimator as a function of named tensors."""
        from onnxtool.models.sklearn import SklearnModel

        return SklearnModel(model, options)

    def convert(self, source: SourceModel, example: Tensors, options: ConvertOptions) -> Conversion:
        """Convert with skl2onnx: no ZipMap, outputs under the source's names."""
        require("skl2onnx", self.extra)
        from onnxtool.converters.sklearn.choosing import choose, with_inputs
        from onnxtool.converters.sklearn.hist_gradient_boosting import for_rows

        opset = options.opset or self.default_opset
        fitted = with_inputs(source, options.inputs)
        fitted.example = options.rows or example
        with for_rows(options.inexact_rows):
            return choose(fitted, options, partial(convert_registered, opset=opset))


def convert_registered(source: Any, opset: int) -> Conversion:
    """Convert a source whose estimators are all known to skl2onnx.

    Args:
        source: A `SklearnModel` or `BoostingModel`.
        opset: Version of the default operator set.

    Raises:
        ConversionError: an estimator has no converter, or its converter fails.
    """
    with registered(register), custom_steps(source):
        return _converted(source, opset)


def _converted(source: Any, opset: int) -> Conversion:
    import skl2onnx

    estimator = inner(source.model)
    specs = source.inputs if len(source.inputs) == 1 or source.selects_columns else merged(source.inputs)
    with quiet(), adapted(source), explained(estimator), completed() as complete:
        options, choices = _options(estimator)
        model: onnx.ModelProto = skl2onnx.convert_sklearn(
            estimator,
            name=type(estimator).__name__,
            initial_types=[(spec.name, _type(spec)) for spec in specs],
            target_opset={"": opset, ML: ML_OPSET},
            options=options,
        )
        complete(model)
        final = _final(estimator)
    for entry in model.opset_import:
        if not entry.domain:
            entry.version = opset  # skl2onnx says the least version that has every operator it wrote
    rename_inputs(model, specs)
    if specs != source.inputs:
        split_input(model, source.inputs)
    shape_outputs(model, source, final)
    describe_contributions(model, final)
    return Conversion(model, choices)


FRAMEWORK = SklearnFramework()


def register() -> None:
    """Make own converters, and those that other frameworks bring for steps of a pipeline, known to skl2onnx."""
    from onnxtool.converters.sklearn import (
        calibration,
        clusters,
        columns,
        committees,
        discretisers,
        dummy,
        embeddings,
        gaussian_process,
        hist_gradient_boosting,
        imputers,
        kernel_features,
        kernels,
        linear,
        meta,
        mixtures,
        multiclass,
        neighbours,
        quantiles,
        scalers,
        selection,
        sparse_coding,
        stacking,
        topics,
        trees,
        wrappers,
    )

    for family in (
        trees, committees, hist_gradient_boosting, scalers, selection, linear, kernels, kernel_features, clusters,
        mixtures, dummy, discretisers, imputers, neighbours, meta, gaussian_process, sparse_coding, topics,
        quantiles, embeddings, columns, calibration, multiclass, stacking, wrappers,
    ):  # fmt: skip
        family.register()
    for framework in frameworks().values():
        framework.register_steps()
    if "interpret" in sys.modules:
        from onnxtool.converters.sklearn.contrib import interpret

        interpret.register()


def _type(spec: TensorSpec) -> Any:
    types = require("skl2onnx.common.data_types", "sklearn")
    kinds = {
        "float32": types.FloatTensorType,
        "float64": types.DoubleTensorType,
        "int64": types.Int64TensorType,
        "int32": types.Int32TensorType,
        "bool": types.BooleanTensorType,
        "string": types.StringTensorType,
    }
    if spec.dtype not in kinds:
        raise ConversionError(f"scikit-learn models take {', '.join(kinds)} in ONNX, not {spec.dtype} ({spec}).")
    return kinds[spec.dtype]([None, *spec.shape[1:]])


def _options(model: Any) -> tuple[dict[int, dict[str, Any]], list[str]]:
    """Options of each estimator by its id, and the notes on them for the report."""
    final = _final(model)
    options: dict[int, dict[str, Any]] = {id(final): {"zipmap": False}} if "zipmap" in _allowed(final) else {}
    choices = []
    for step, _ in steps(model, ()):
        kind = type(step).__name__
        if kind == "StandardScaler" and _allowed(step):
            options[id(step)] = {"div": "div"}
            choices.append("StandardScaler divides, as in scikit-learn, and does not multiply with the inverse.")
        elif kind in VECTORIZERS and _allowed(step):
            options[id(step)] = _text_options(step)
        elif kind in ("SVC", "NuSVC") and len(step.classes_) == 2 and not hasattr(step, "predict_proba"):
            # Without it the two columns come in the other order.
            options.setdefault(id(step), {})["raw_scores"] = True
    for step, _ in steps(model, ()):
        if hasattr(step, "predict") and "zipmap" not in _allowed(step):
            options.setdefault(id(step), {})  # else a pipeline gives it zipmap, which it refuses
    for step in sparse_readers(model):
        if "zero_is_missing" in _allowed(step):
            options.setdefault(id(step), {})["zero_is_missing"] = True
            choices.append(
                f"{type(step).__name__} was given sparse rows, whose zeros it takes for missing values."
            )
    return options, list(dict.fromkeys(choices))


DEFAULT_WORD = r"(?u)\b\w\w+\b"
"""The pattern of a word in scikit-learn's vectorizers."""


def _text_options(vectorizer: Any) -> dict[str, Any]:
    """Split text as the default pattern does, and lower it in a locale that every machine has."""
    ascii_only = all(word.isascii() for word in getattr(vectorizer, "vocabulary_", ()))
    options = {"locale": "C" if ascii_only else "C.UTF-8"}
    if vectorizer.analyzer == "word" and vectorizer.token_pattern == DEFAULT_WORD:
        options["tokenexp"] = r"[\p{L}\p{N}_]{2,}"
    return options


def _final(model: Any) -> Any:
    """The estimator whose outputs are the model's."""
    model = inner(model)
    while hasattr(model, "steps"):
        model = inner(model.steps[-1][1])
    return model


def _allowed(model: Any) -> dict[str, Any]:
    """The options that skl2onnx's converter for an estimator takes."""
    registration = require("skl2onnx.common._registration", "sklearn")
    aliases = require("skl2onnx._supported_operators", "sklearn").sklearn_operator_name_map
    try:
        allowed = registration.get_converter(aliases[type(model)]).get_allowed_options()
    except (KeyError, ValueError):
        return {}
    return allowed if isinstance(allowed, dict) else {}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep a converter's prints and warnings from the user, who can do nothing about them."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def adapted(source: Any) -> Iterator[None]:
    """Give some steps other values while they are converted, and restore the old ones.

    ONNX has no missing text. The source's inputs say "" for it, so the steps must say so too. And skl2onnx knows
    no "passthrough" in a pipeline and no "drop" in a union.
    """
    with contextlib.ExitStack() as undo:
        for step, _ in steps(source.model, ()):
            for name, value in _other_values(step).items():
                undo.callback(setattr, step, name, getattr(step, name))
                setattr(step, name, value)
        yield


def _other_values(step: Any) -> dict[str, Any]:
    kind = type(step).__name__
    if kind == "SimpleImputer" and any(isinstance(value, str) for value in step.statistics_):
        return {"missing_values": ""}
    if kind == "OneHotEncoder" and hasattr(step, "categories_"):
        return {"categories_": [_without_missing(categories) for categories in step.categories_]}
    for name in ("steps", "transformer_list"):
        if hasattr(step, name):
            parts = [(part, fitted) for part, fitted in getattr(step, name) if hasattr(fitted, "fit")]
            identity = require("sklearn.preprocessing", "sklearn").FunctionTransformer()
            return {name: parts or [("passthrough", identity)]}
    if kind == "VotingClassifier":
        return {"flatten_transform": False}  # says how transform answers, and skl2onnx refuses the default
    return {}


def _without_missing(categories: Any) -> Any:
    if categories.dtype != object or not any(isinstance(value, str) for value in categories):
        return categories
    replaced = categories.copy()
    for place, value in enumerate(categories):
        if not isinstance(value, str):
            replaced[place] = ""
    return replaced


@contextlib.contextmanager
def explained(model: Any) -> Iterator[None]:
    """Turn what a converter raises into one sentence that names the step and a remedy."""
    try:
        yield
    except ConversionError:
        raise
    except Exception as error:  # converters raise every kind of exception, RuntimeError and TypeError mostly
        raise ConversionError(_explanation(model, error)) from error


def _explanation(model: Any, error: Exception) -> str:
    text = str(error)
    missing = re.search(r"Unable to find a (?:shape calculator|converter) for type '<class '([\w.]+)'>'", text)
    if missing:
        kind = missing[1].rsplit(".", 1)[-1]
        if kind == "HashingVectorizer":
            return "HashingVectorizer hashes words, and ONNX has no hash function. Take CountVectorizer."
        return (
            f"{kind} has no conversion to ONNX{_place(model, kind)}: neither skl2onnx nor onnxtool has one. "
            "Use another estimator for this step, or register one with skl2onnx.update_registered_converter."
        )
    node = re.search(r"Unable to create node '(\w+)'", text)
    if node:
        return (
            f"{type(model).__name__} cannot be converted: skl2onnx fails to write its {node[1]} node. "
            "Another version of skl2onnx or scikit-learn may help."
        )
    return f"{type(model).__name__} cannot be converted: {first_line(error)}"


def _place(model: Any, kind: str) -> str:
    names = [name for name, step in getattr(model, "steps", ()) if type(step).__name__ == kind]
    return f" (step {names[0]!r})" if names else ""
