"""XGBoost, LightGBM and CatBoost as functions from a matrix to named tensors.

Everything is brought into the libraries' scikit-learn wrappers first: what a file or a bare booster holds is
then gives labels and probabilities in the same way as a fitted wrapper.
"""

from __future__ import annotations

import itertools
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import ConversionError, SourceError, UsageError, require
from onnxtool.models.onnx.artifact import first_line
from onnxtool.models.rows.domain import Domain
from onnxtool.models.signature import BATCH, Role, Tensors, TensorSpec, in_double
from onnxtool.models.sklearn.fitted import Column
from onnxtool.models.source import LoadOptions, SourceModel

Library: TypeAlias = Literal["xgboost", "lightgbm", "catboost"]

EXTRA = "boosting"
NO_BORDER = 1e30
NUMBERS = ("float32", "float64", "int64")
"""Dtypes of the matrix that an ensemble takes in ONNX."""


class BoostingModel(SourceModel):
    """A boosted ensemble of one of the three libraries.

    Attributes:
        library: Which one.
        categories: The categories of features that were pandas' categorical columns, by place; the trees know codes.
        outputs: The outputs' names, in order.
        selects_columns: No: the trees are given one matrix.
    """

    selects_columns = False
    any_number = True

    def __init__(self, model: Any, options: LoadOptions) -> None:
        self.library = library_of(model)
        self.framework = "boosting"
        self.framework_version = f"{self.library} {require(self.library, EXTRA).__version__}"
        self.model = wrapped(model)
        self._given = f"{type(model).__module__}.{type(model).__qualname__}"
        if self.library == "catboost" and self.model.get_cat_feature_indices():
            raise ConversionError(
                f"{type(self.model).__name__} has categorical features. CatBoost keeps hashes of their categories, "
                "which ONNX cannot compute. Encode them in a pipeline, with OneHotEncoder or OrdinalEncoder."
            )
        names = _as_in_data(feature_names(self.model), options.data)
        self.categories = categories(self.model)
        self.inputs = (
            _columns(options, names, self.categories) if self.categories else (_signature(options, names),)
        )
        self._declared = bool(options.inputs)
        if self.categories and self.library == "xgboost":
            self.notes = (
                "XGBoost refuses a category that training has not seen. The ONNX model takes it for missing, and "
                "so does the source here.",
            )
        self.classifies = hasattr(self.model, "predict_proba")
        self.outputs = ("label", "probabilities") if self.classifies else ("prediction",)
        self.roles: Mapping[str, Role] = (
            {"label": "label", "probabilities": "probabilities"} if self.classifies else {}
        )

    @property
    def kind(self) -> str:
        """The class of what was given; a bare booster is wrapped here."""
        return self._given

    def predict(self, tensors: Tensors) -> Tensors:
        """Run the ensemble; a missing number is NaN, and missing text is empty."""
        rows = self._frame(tensors) if self.categories else tensors[self.inputs[0].name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rows without column names
            answer = np.asarray(self.model.predict(rows))
            if not self.classifies:
                return {"prediction": answer.reshape(len(rows), -1)}
            return {"label": _labels(answer), "probabilities": np.asarray(self.model.predict_proba(rows))}

    def _frame(self, tensors: Tensors) -> Any:
        """The rows as a data frame with categorical columns, under the names that the ensemble knows."""
        pandas = require("pandas", EXTRA)
        found = {}
        for place, (name, spec) in enumerate(zip(feature_names(self.model), self.inputs, strict=True)):
            values = tensors[spec.name].reshape(-1)
            if place in self.categories:
                known = set(self.categories[place])
                # One that training has not seen is missing, as LightGBM has it; XGBoost refuses it.
                kept = [value if value in known else None for value in values.tolist()]
                values = pandas.Categorical(kept, categories=self.categories[place])
            found[name] = values
        return pandas.DataFrame(found)

    @property
    def numbers(self) -> frozenset[str]:
        """Names of the inputs that hold numbers: the matrix, or the columns that are no categories."""
        return frozenset(spec.name for place, spec in enumerate(self.inputs) if place not in self.categories)

    @property
    def rows_as(self) -> tuple[TensorSpec, ...]:
        """float64, as data frames and files hold numbers, unless the user declared the input."""
        return self.inputs if self._declared else in_double(self.inputs)

    def domains(self) -> Mapping[str, Domain]:
        """The thresholds of every feature, or its category codes; a share of the values is missing."""
        columns = [Column(missing=True) for _ in range(len(feature_names(self.model)))]
        for feature, threshold in thresholds(self.model):
            columns[feature].thresholds.append(threshold)
        for feature, codes in category_codes(self.model).items():
            columns[feature] = Column(categories=tuple(map(float, codes)), missing=True)
        for feature, known in self.categories.items():
            columns[feature] = Column(categories=tuple(known), missing=True)
        if self.categories:
            pairs = zip(self.inputs, columns, strict=True)
            return {spec.name: column.domain() for spec, column in pairs}
        return {self.inputs[0].name: Domain(columns=tuple(column.domain() for column in columns))}


def library_of(model: object) -> Library:
    """The library that a model comes from."""
    root = type(model).__module__.partition(".")[0]
    if root not in ("xgboost", "lightgbm", "catboost"):
        raise SourceError(f"{type(model).__name__} is no model of XGBoost, LightGBM or CatBoost.")
    return root  # type: ignore[return-value]  # narrowed by the line above


# -- Files ----------------------------------------------------------------------------------------------------


def recognised(path: Path) -> Library | None:
    """The library whose format a file has, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(256)
    if head.startswith(b"CBM1"):
        return "catboost"
    if head.startswith(b"tree\n") and b"version=" in head:
        return "lightgbm"
    # UBJSON and JSON: an object whose first key is "learner".
    if re.match(rb'\{(L.{8}|l.{4}|I..|[iU].)learner|\s*\{\s*"learner"', head, re.DOTALL):
        return "xgboost"
    return None


def load(path: Path) -> Any:
    """Open a model file of one of the three libraries.

    Raises:
        SourceError: it is damaged.
        MissingExtraError: its library is not installed.
    """
    library = recognised(path)
    if library is None:
        raise SourceError(f"{path} is no model file of XGBoost, LightGBM or CatBoost.")
    module = require(library, EXTRA)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # XGBoost's, about a file's extension
            return _read(library, module, str(path))
    except Exception as error:  # each library has an exception of its own, without a common base
        raise SourceError(f"{path} is damaged, or of an unknown version: {first_line(error)}") from error


def _read(library: Library, module: Any, path: str) -> Any:
    if library == "lightgbm":
        return module.Booster(model_file=path)
    model = module.Booster() if library == "xgboost" else module.CatBoost()
    model.load_model(path)
    return model


# -- Wrappers -------------------------------------------------------------------------------------------------


def wrapped(model: Any) -> Any:
    """The model as its library's scikit-learn wrapper: a classifier or a regressor."""
    kind = type(model).__name__
    library = library_of(model)
    if kind == "Booster":
        return _wrapped_xgboost(model) if library == "xgboost" else LightGBMBooster.of(model)
    if kind == "CatBoost":
        catboost = require("catboost", EXTRA)
        loss = str(model.get_all_params().get("loss_function", ""))
        classifies = loss.startswith(("Logloss", "CrossEntropy", "MultiClass"))
        wrapper = catboost.CatBoostClassifier() if classifies else catboost.CatBoostRegressor()
        wrapper.load_model(blob=model._serialize_model())
        return wrapper
    fitted = {"xgboost": "_Booster", "lightgbm": "_Booster"}.get(library)
    if (fitted and getattr(model, fitted, None) is None) or (library == "catboost" and not model.is_fitted()):
        raise SourceError(f"The {kind} is not fitted. Fit it, then save it again.")
    return model


def _wrapped_xgboost(booster: Any) -> Any:
    xgboost = require("xgboost", EXTRA)
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    classifies = objective.startswith(("binary:logistic", "multi:softprob", "multi:softmax"))
    wrapper = xgboost.XGBClassifier() if classifies else xgboost.XGBRegressor()
    wrapper.load_model(booster.save_raw("ubj"))
    return wrapper


class LightGBMBooster:
    """A bare LightGBM booster that answers as a wrapper does; LightGBM cannot make a wrapper of it.

    Attributes:
        booster_: The booster.
        boosting_type: `rf` where outputs are averaged; its converter reads it.
    """

    def __init__(self, booster: Any) -> None:
        self.booster_ = booster
        self.boosting_type = "rf" if "\naverage_output\n" in booster.model_to_string(num_iteration=1) else "gbdt"

    @staticmethod
    def of(booster: Any) -> LightGBMBooster:
        """The regressor or classifier that the booster's objective makes of it."""
        objective = re.search(r"^objective=(\w+)", booster.model_to_string(num_iteration=1), re.MULTILINE)
        if objective and objective[1] in ("binary", "multiclass", "softmax", "multiclassova"):
            return LightGBMBoosterClassifier(booster)
        return LightGBMBooster(booster)

    def predict(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Predictions, or scores of a ranker."""
        return np.asarray(self.booster_.predict(rows))


class LightGBMBoosterClassifier(LightGBMBooster):
    """The same for classes, which are numbered from 0."""

    def __init__(self, booster: Any) -> None:
        super().__init__(booster)
        self.classes_ = np.arange(max(2, booster.num_model_per_iteration()))

    def predict(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Most probable class of each row."""
        return np.asarray(self.predict_proba(rows).argmax(axis=1))

    def predict_proba(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Probability of each class, [rows, classes]."""
        found = np.asarray(self.booster_.predict(rows))
        return np.stack([1 - found, found], axis=1) if found.ndim == 1 else found


# -- What goes in ---------------------------------------------------------------------------------------------


def _signature(options: LoadOptions, names: tuple[str, ...]) -> TensorSpec:
    if not options.inputs:
        return TensorSpec("X", "float32", (BATCH, len(names)), columns=names)
    given = options.inputs[0]
    if len(options.inputs) > 1 or given.dtype not in NUMBERS or given.shape[1:] != (len(names),):
        raise UsageError(
            f"The inputs {', '.join(map(str, options.inputs))} do not fit the model. "
            f"It takes one matrix, X:float32[{BATCH},{len(names)}], or of {' or '.join(NUMBERS[1:])}."
        )
    return TensorSpec(given.name, given.dtype, given.shape, columns=names)


def _columns(
    options: LoadOptions, names: tuple[str, ...], known: Mapping[int, Sequence[Any]]
) -> tuple[TensorSpec, ...]:
    """An input a column: text for categories that are text, else numbers."""
    made = tuple(
        TensorSpec(name, "string" if isinstance(known.get(place, [0])[0], str) else "float32", (BATCH, 1))
        for place, name in enumerate(names)
    )
    given = {spec.name: spec for spec in options.inputs}
    if given and (set(given) != set(names) or any(spec.shape[1:] != (1,) for spec in options.inputs)):
        raise UsageError(
            f"The inputs {', '.join(map(str, options.inputs))} do not fit the model, which has categories. "
            f"Give NAME:DTYPE[{BATCH},1] for every column: {', '.join(map(str, made))}."
        )
    return tuple(given.get(spec.name, spec) for spec in made)


def _as_in_data(names: tuple[str, ...], data: Tensors) -> tuple[str, ...]:
    """The names that columns have in the data: LightGBM writes underscores for the spaces in them."""
    written = {re.sub(r"\s", "_", name): name for name in data if re.search(r"\s", name)}
    return tuple(name if name in data else written.get(name, name) for name in names)


def categories(model: Any) -> dict[int, list[Any]]:
    """The categories of the features that were pandas' categorical columns, by the feature's place, in their order.

    Files of XGBoost before 3.1 have none, and CatBoost's hold hashes of them.
    """
    if isinstance(model, LightGBMBooster) or library_of(model) == "lightgbm":
        known = model.booster_.pandas_categorical or []
        text = model.booster_.model_to_string(num_iteration=1)
        places = re.search(r"^\[categorical_feature: ([\d,]+)\]", text, re.MULTILINE)
        features = sorted(map(int, places[1].split(","))) if places else []
        return dict(zip(features, known, strict=True)) if len(features) == len(known) else {}
    if library_of(model) == "xgboost":
        return _xgboost_categories(model)
    return {}


def _xgboost_categories(model: Any) -> dict[int, list[Any]]:
    booster = json.loads(bytes(model.get_booster().save_raw("json")))["learner"]["gradient_booster"]
    found: dict[int, list[Any]] = {}
    for feature, entry in enumerate((booster.get("model") or {}).get("cats", {}).get("enc", ())):
        if "offsets" in entry:
            letters, ends = bytes(value % 256 for value in entry["values"]), entry["offsets"]
            known = [letters[start:end].decode() for start, end in itertools.pairwise(ends)]
        else:
            known = list(entry["values"])
        if known:
            found[feature] = known
    return found


def feature_names(model: Any) -> tuple[str, ...]:
    """Names of the features, made up where the model has none."""
    library = library_of(model) if not isinstance(model, LightGBMBooster) else "lightgbm"
    if library == "xgboost":
        booster = model.get_booster()
        return tuple(booster.feature_names or (f"f{place}" for place in range(booster.num_features())))
    if library == "lightgbm":
        return tuple(model.booster_.feature_name())
    return tuple(model.feature_names_)


def thresholds(model: Any) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """The feature and the thresholds of each tree or feature."""
    if isinstance(model, LightGBMBooster) or library_of(model) == "lightgbm":
        for tree in re.split(r"\n(?=Tree=\d)", model.booster_.model_to_string()):
            lines = dict(re.findall(r"^(split_feature|threshold|decision_type)=(.+)$", tree, re.MULTILINE))
            if len(lines) == 3:
                features, values, kinds = (np.array(lines[key].split(), dtype=float) for key in lines)
                numeric = kinds.astype(int) & 1 == 0
                yield from _by_feature(features[numeric], values[numeric])
    elif library_of(model) == "xgboost":
        for tree in _xgboost_trees(model):
            inner = (np.array(tree["left_children"]) >= 0) & (np.array(tree["split_type"]) == 0)
            yield from _by_feature(
                np.array(tree["split_indices"])[inner], np.array(tree["split_conditions"], dtype=float)[inner]
            )
    else:
        for feature, borders in model.get_borders().items():
            # The least float32 is a border too, where it parts missing values from numbers.
            marks = np.array([border for border in borders if abs(border) < NO_BORDER], dtype=float)
            if len(marks):
                yield int(feature), marks


def category_codes(model: Any) -> dict[int, set[int]]:
    """The codes of each categorical feature, and one that the trees have not seen."""
    codes: dict[int, set[int]] = {}
    if isinstance(model, LightGBMBooster) or library_of(model) == "lightgbm":
        text = model.booster_.model_to_string(num_iteration=1)
        infos = re.search(r"^feature_infos=(.+)$", text, re.MULTILINE)
        for feature, info in enumerate(infos[1].split() if infos else ()):
            if re.fullmatch(r"-?\d+(:-?\d+)*", info):
                codes[feature] = {int(code) for code in info.split(":") if int(code) >= 0}
    elif library_of(model) == "xgboost":
        for tree in _xgboost_trees(model):
            for node, start, size in zip(
                tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
            ):
                found = codes.setdefault(tree["split_indices"][node], set())
                found.update(tree["categories"][start : start + size])
    return {feature: {*known, max(known, default=0) + 1} for feature, known in codes.items()}


def _xgboost_trees(model: Any) -> list[dict[str, Any]]:
    booster = json.loads(bytes(model.get_booster().save_raw("json")))["learner"]["gradient_booster"]
    trees: list[dict[str, Any]] = booster.get("gbtree", booster).get("model", {}).get("trees", [])
    return trees


def _by_feature(features: NDArray[Any], values: NDArray[np.float64]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    for feature in np.unique(features):
        yield int(feature), values[features == feature]


def _labels(values: NDArray[Any]) -> NDArray[Any]:
    labels = values.reshape(-1)
    return labels.astype(str).astype(object) if labels.dtype.kind in "OUS" else labels.astype(np.int64)
