"""scikit-learn's estimators and pipelines as functions from named tensors to named tensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import SourceError, UsageError, require
from onnxtool.models.onnx.artifact import first_line
from onnxtool.models.rows.domain import Domain
from onnxtool.models.signature import BATCH, Role, Tensors, TensorSpec, dtype_name, in_double
from onnxtool.models.sklearn.contrib import library_of
from onnxtool.models.sklearn.fitted import Column, columns_of, vocabulary
from onnxtool.models.sklearn.lineage import VECTORIZERS, steps
from onnxtool.models.sklearn.neighbors import alternatives
from onnxtool.models.source import LoadOptions, SourceModel, Step
from onnxtool.models.state import ModelState, attributes_of, keeping

Answer: TypeAlias = Callable[[Any], NDArray[Any]]

MATRIX = "X"
TEXT = "text"


class SklearnModel(SourceModel):
    """A fitted estimator or pipeline. It takes any numbers, and casts them itself where it has to.

    Attributes:
        columns: What the model knows of each raw column, in order; empty for a model of text.
        outputs: The outputs' names, in order.
        selects_columns: Whether a step picks columns by name.
        example: A few rows to see what its steps are given; made up where there are none.
    """

    any_number = True
    example: Tensors
    _state: ModelState | None = None
    _knows_missing = False

    def __init__(self, model: Any, options: LoadOptions) -> None:
        self.framework = "sklearn"
        self.framework_version = str(require("sklearn", "sklearn").__version__)
        self.model = model
        self.names = _names(model, options)
        self.reads_text = _reads_text(model)
        self.columns: tuple[Column, ...] = () if self.reads_text else columns_of(model, _width(model, options))
        self._row_dtype = _row_dtype(model)
        self.selects_columns = _selects_by_name(model)
        self.inputs = self._signature(options)
        self._declared = bool(options.inputs)
        self.example = {}
        self._answers = {_unambiguous(name, self.inputs): answer for name, answer in answers(model).items()}
        self.outputs = tuple(self._answers)
        self.roles: Mapping[str, Role] = {
            name: "label" if name.startswith("label") else "probabilities"
            for name in self.outputs
            if name.startswith(("label", "probabilities"))
        }

    def predict(self, tensors: Tensors) -> Tensors:
        """Run the estimator; rows go in as a data frame when it was fitted on one.

        Raises:
            SourceError: it rejects the rows, as an encoder does with `handle_unknown="error"`.
        """
        rows = self.rows({name: self._as_fitted(tensor) for name, tensor in tensors.items()})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unknown categories and the like: such rows are intended
            try:
                return {name: answer(rows) for name, answer in self._answers.items()}
            except ValueError as error:
                kind = type(self.model).__name__
                raise SourceError(f"The {kind} refuses the rows: {first_line(error)}") from error

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Put back what a run changes of the user's own estimators; see `models.state`."""
        self._state = self._state or ModelState(attributes_of(self.model))
        with keeping(self, self._state):
            yield

    def steps(self, tensors: Tensors) -> Iterator[Step]:
        """The outputs of the steps of a pipeline, and of pipelines in it, for the rows; then those of the last."""
        rows = self.rows({name: self._as_fitted(tensor) for name, tensor in tensors.items()})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in predict
            for name, step in _chain(self.model):
                if hasattr(step, "transform"):
                    rows = step.transform(rows)
                    yield Step(name, type(step).__name__, _dense(rows))
                    continue
                for output, answer in answers(step).items():
                    yield Step(f"{name}.{output}", type(step).__name__, answer(rows))

    def alternatives(self, tensors: Tensors) -> list[Tensors]:
        """The answers of other choices among equally far neighbours; see `models.sklearn.neighbors`."""
        rows = self.rows({name: self._as_fitted(tensor) for name, tensor in tensors.items()})
        names = dict(zip(answers(self.model), self.outputs, strict=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in predict
            found = alternatives(self.model, rows)
        return [{names[name]: value for name, value in answer.items() if name in names} for answer in found]

    def in_double(self, tensors: Tensors) -> Tensors | None:
        """The estimator's outputs for float64 rows: most estimators compute in the dtype of the rows."""
        return self.predict(tensors)

    def rows(self, tensors: Tensors) -> Any:
        """The rows in the form in which the estimator takes them."""
        if self.reads_text:
            return list(tensors[self.inputs[0].name].reshape(-1))
        if len(self.inputs) == 1:
            matrix = tensors[self.inputs[0].name]
            if self.inputs[0].dtype == "string":
                matrix = np.stack(
                    [self._with_missing(matrix[:, place], place) for place in range(matrix.shape[1])], axis=1
                )
            if not self.names:
                return matrix
            return require("pandas", "sklearn").DataFrame(matrix, columns=list(self.names), copy=False)
        values = [
            self._with_missing(tensors[spec.name].reshape(-1), place) for place, spec in enumerate(self.inputs)
        ]
        if not self.names:
            return np.stack([column.astype(object) for column in values], axis=1)
        pandas = require("pandas", "sklearn")
        # dtype=object keeps pandas from turning text into a dtype of its own.
        return pandas.DataFrame(
            {
                name: pandas.Series(column, dtype=column.dtype, copy=False)
                for name, column in zip(self.names, values, strict=True)
            }
        )

    def domains(self) -> Mapping[str, Domain]:
        """The domains of the columns, from the fitted steps: categories, ranges, thresholds, vocabulary."""
        if self.reads_text:
            return {self.inputs[0].name: Domain(choices=_words(self.model), words=12)}
        if not self._knows_missing:
            self._knows_missing = True
            self._find_missing()
        return self._domains()

    def _domains(self) -> dict[str, Domain]:
        found = [column.domain() for column in self.columns]
        if len(self.inputs) == 1:
            return {self.inputs[0].name: Domain(columns=tuple(found))}
        return {spec.name: domain for spec, domain in zip(self.inputs, found, strict=True)}

    def _find_missing(self) -> None:
        """Mark the columns that trees split and in which the model takes NaN: forests do, AdaBoost does not."""
        split = [place for place, column in enumerate(self.columns) if column.thresholds and not column.missing]
        if not split:
            return
        rng, domains = np.random.default_rng(0), self._domains()
        row = {s.name: domains[s.name].sample(s.dtype, (1, *map(int, s.shape[1:])), rng) for s in self.rows_as}
        for place in split:
            name, column = (self.inputs[0].name, place) if len(self.inputs) == 1 else (self.inputs[place].name, 0)
            if row[name].dtype.kind == "f":
                row[name][0, column] = np.nan
        try:
            self.answer(row)
        except SourceError:
            return
        for place in split:
            self.columns[place].missing = True

    @property
    def numbers(self) -> frozenset[str]:
        """Names of the inputs that hold numbers, and no categories of which the model has a list."""
        if self.reads_text:
            return frozenset()
        groups = [self.columns] if len(self.inputs) == 1 else [(column,) for column in self.columns]
        return frozenset(
            spec.name
            for spec, columns in zip(self.inputs, groups, strict=True)
            if spec.dtype not in ("string", "bool") and {column.dtype for column in columns} <= {"", "float32"}
        )

    @property
    def rows_as(self) -> tuple[TensorSpec, ...]:
        """float64 for numbers, as data frames and files hold them, unless the user declared the inputs."""
        return self.inputs if self._declared or self._row_dtype == np.float32 else in_double(self.inputs)

    def _as_fitted(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Some steps refuse float rows of another precision than that of their fit, so a caller casts them."""
        if self._row_dtype is None or tensor.dtype.kind != "f":
            return tensor
        return tensor.astype(self._row_dtype, copy=False)

    def _with_missing(self, values: NDArray[Any], place: int) -> NDArray[Any]:
        """ONNX has no missing text: the empty string stands for it, where the model has something missing."""
        missing: Any = self.columns[place].missing_text
        if values.dtype != object and self.columns[place].as_objects:
            objects = values.astype(object)
            return objects if missing is False else np.where(np.isnan(values), missing, objects)
        if values.dtype != object or missing is False:
            return values
        return np.where(values == "", missing, values)

    def _signature(self, options: LoadOptions) -> tuple[TensorSpec, ...]:
        if options.inputs:
            return self._with_specs(options.inputs)
        if self.reads_text:
            return (TensorSpec(TEXT, "string", (BATCH, 1)),)
        names = self.names or tuple(f"x{place}" for place in range(len(self.columns)))
        dtypes = [
            column.dtype or ("float32" if column.ranges else _dtype_in_data(options.data, name))
            for name, column in zip(names, self.columns, strict=True)
        ]
        if len(set(dtypes)) == 1 and not self.selects_columns:
            return (TensorSpec(MATRIX, dtypes[0], (BATCH, len(dtypes)), columns=self.names),)
        return tuple(TensorSpec(name, dtype, (BATCH, 1)) for name, dtype in zip(names, dtypes, strict=True))

    def _with_specs(self, specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        count = 1 if self.reads_text else len(self.columns)
        if len(specs) == 1 and (self.reads_text or specs[0].shape[1:] == (count,)):
            return (TensorSpec(specs[0].name, specs[0].dtype, specs[0].shape, columns=self.names),)
        known = self.names or tuple(spec.name for spec in specs)
        by_name = {spec.name: spec for spec in specs}
        if set(by_name) != set(known) or len(specs) != count or any(spec.shape[1:] != (1,) for spec in specs):
            raise UsageError(
                f"The inputs {', '.join(map(str, specs))} do not fit the model, which takes {count} columns"
                f"{': ' + ', '.join(self.names) if self.names else ''}. "
                f"Give one matrix, as in {MATRIX}:float32[batch,{count}], or NAME:DTYPE[batch,1] for every column."
            )
        return tuple(by_name[name] for name in known)


def _row_dtype(model: Any) -> np.dtype[Any] | None:
    """The precision of float rows that a step insists on: KMeans that of its centres, skorch that of its weights."""
    cluster = require("sklearn.cluster", "sklearn")
    by_means = (cluster.KMeans, cluster.MiniBatchKMeans, cluster.BisectingKMeans)
    for step, _ in steps(model, ()):
        if isinstance(step, by_means):
            dtype: np.dtype[Any] = step.cluster_centers_.dtype
            return dtype
        if library_of(step) == "skorch":
            return np.dtype(np.float32)
    return None


# -- What goes in ---------------------------------------------------------------------------------------------


def _reads_text(model: Any) -> bool:
    kinds = {type(step).__name__ for step, _ in steps(model, ())}
    dictionaries = kinds & {"DictVectorizer", "FeatureHasher"}
    if dictionaries:
        raise SourceError(
            f"{dictionaries.pop()} takes dictionaries, which ONNX tensors cannot hold. "
            "Fit the model on columns, with OneHotEncoder for text."
        )
    return bool(kinds & VECTORIZERS) and not hasattr(model, "n_features_in_")


def _width(model: Any, options: LoadOptions) -> int:
    width = getattr(_first(model), "n_features_in_", None)
    if width is not None:
        return int(width)
    if (
        len(options.inputs) == 1
        and len(options.inputs[0].shape) == 2
        and isinstance(options.inputs[0].shape[1], int)
    ):
        return options.inputs[0].shape[1]
    if options.data:  # an estimator of the user's own, which need not count its columns
        return sum(tensor.shape[1] if tensor.ndim > 1 else 1 for tensor in options.data.values())
    if not hasattr(model, "steps") and not any(
        name.endswith("_") and not name.endswith("__") for name in vars(model)
    ):
        raise SourceError(f"The {type(model).__name__} is not fitted. Fit it, then save it again.")
    raise SourceError(
        f"The {type(model).__name__} does not say how many columns it takes. Give rows of the columns that it takes "
        f"with --data or, for a matrix, their number with --input, as in {MATRIX}:float32[{BATCH},4]."
    )


def _names(model: Any, options: LoadOptions) -> tuple[str, ...]:
    """The names of the columns that a model was fitted on, if it was a data frame.

    A step of the user's own need not know them: then they are those of the data, if the model takes a frame of it.
    """
    first = _first(model)
    known = tuple(str(name) for name in getattr(first, "feature_names_in_", ()))
    table = {
        name: values
        for name, values in options.data.items()
        if name and values.ndim == 1 and values.dtype.kind != "V"
    }
    if known or not table or hasattr(first, "n_features_in_") or _reads_text(model):
        return known
    frame = require("pandas", "sklearn").DataFrame({name: values[:2] for name, values in table.items()})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            next(iter(answers(model).values()))(frame)
    except Exception:  # the user's own code may raise anything at what is no matrix
        return ()
    return tuple(table)


def _first(model: Any) -> Any:
    """The part of a pipeline or union that knows the rows first, itself for others; "passthrough" knows nothing."""
    while not hasattr(model, "n_features_in_"):
        parts = (*getattr(model, "steps", ()), *getattr(model, "transformer_list", ()))
        inner = next((part for _, part in parts if hasattr(part, "fit")), None)
        if inner is None:
            break
        model = inner
    return model


def _dtype_in_data(data: Tensors, name: str) -> str:
    """The dtype of a column that the model does not know: text and booleans as in the data."""
    found = dtype_name(data[name]) if name in data else "float32"
    return found if found in ("string", "bool") else "float32"


def _selects_by_name(model: Any) -> bool:
    for step, _ in steps(model, ()):
        for _, _, chosen in getattr(step, "transformers_", ()):
            several = () if isinstance(chosen, str | slice | int) else chosen
            if isinstance(chosen, str) or any(isinstance(one, str) for one in several):
                return True
    return False


def _words(model: Any) -> tuple[str, ...]:
    readers = (step for step, _ in steps(model, ()) if type(step).__name__ in VECTORIZERS)
    return tuple(dict.fromkeys(word for reader in readers for word in vocabulary(reader)))


def _chain(model: Any) -> Iterator[tuple[str, Any]]:
    """The steps that rows go through one after the other; nothing for an estimator alone."""
    for name, step in getattr(model, "steps", ()):
        if hasattr(step, "steps"):
            yield from ((f"{name}.{inner}", part) for inner, part in _chain(step))
        elif hasattr(step, "fit"):  # "passthrough" is no step
            yield name, step


# -- What comes out -------------------------------------------------------------------------------------------


def answers(model: Any) -> dict[str, Answer]:
    """The outputs of an estimator by name, each with the function that gives it.

    Raises:
        SourceError: it gives nothing for new rows.
    """
    base = require("sklearn.base", "sklearn")
    if hasattr(_last(model), "get_support"):  # RFE predicts too, but stands in a pipeline to select
        return {"transformed": lambda rows: _dense(model.transform(rows))}
    if base.is_classifier(model) and hasattr(model, "predict"):
        return {"label": lambda rows: _labels(model.predict(rows)), **_confidence(model), **_contributions(model)}
    if base.is_regressor(model) and hasattr(model, "predict"):
        return {"prediction": lambda rows: _two_dimensional(model.predict(rows)), **_contributions(model)}
    if base.is_outlier_detector(model) and hasattr(model, "predict"):
        return {
            "label": lambda rows: _labels(model.predict(rows)),
            "scores": lambda rows: _two_dimensional(model.decision_function(rows)),
        }
    if hasattr(model, "predict"):
        found: dict[str, Answer] = {"label": lambda rows: _labels(model.predict(rows))}
        if hasattr(model, "predict_proba"):
            found["probabilities"] = lambda rows: np.asarray(model.predict_proba(rows))
        elif hasattr(model, "transform"):
            found["distances"] = lambda rows: _dense(model.transform(rows))
        return found
    if hasattr(model, "transform"):
        return {"transformed": lambda rows: _dense(model.transform(rows))}
    raise SourceError(
        f"{type(model).__name__} has neither predict nor transform for new rows, so there is nothing to convert."
    )


def _confidence(model: Any) -> dict[str, Answer]:
    if hasattr(model, "predict_proba"):
        classes = getattr(model, "classes_", None)
        if isinstance(classes, list) and not _is_chain(model):  # one array for each of several targets
            targets = range(len(classes))
            return {f"probabilities_{target}": partial(_probabilities_of, model, target) for target in targets}
        return {"probabilities": lambda rows: np.asarray(model.predict_proba(rows))}
    if hasattr(model, "decision_function"):
        return {"scores": lambda rows: _two_dimensional(model.decision_function(rows))}
    return {}


def _contributions(model: Any) -> dict[str, Answer]:
    """What each term of an explainable boosting machine adds to the score, [rows, terms], or one more a class."""
    last = _last(model)
    if not hasattr(last, "eval_terms"):
        return {}
    return {"contributions": lambda rows: np.asarray(last.eval_terms(_before_last(model, rows)))}


def _before_last(model: Any, rows: Any) -> Any:
    """The rows as the last step of a pipeline is given them."""
    while hasattr(model, "steps"):
        for _, step in model.steps[:-1]:
            rows = step.transform(rows) if hasattr(step, "transform") else rows
        model = model.steps[-1][1]
    return rows


def _is_chain(model: Any) -> bool:
    """Whether it is a ClassifierChain, which gives the second class's probability for each target in one matrix."""
    return hasattr(_last(model), "order_")


def _last(model: Any) -> Any:
    """The last step of a pipeline, or of one that stands last in it."""
    while hasattr(model, "steps"):
        model = model.steps[-1][1]
    return model  # "passthrough" too


def _probabilities_of(model: Any, target: int, rows: Any) -> NDArray[Any]:
    return np.asarray(model.predict_proba(rows)[target])


def _labels(values: Any) -> NDArray[Any]:
    labels = np.asarray(values)
    if labels.dtype.kind in "OUS":
        return labels.astype(str).astype(object)
    whole = labels.astype(np.int64)
    if not np.array_equal(whole, labels):
        raise SourceError("The class labels are fractions. Labels in ONNX are whole numbers or text.")
    return whole


def _two_dimensional(values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    return array.reshape(len(array), -1)


def _dense(values: Any) -> NDArray[Any]:
    if hasattr(values, "toarray"):
        values = values.toarray()
    return np.asarray(values)


def _unambiguous(name: str, inputs: Sequence[TensorSpec]) -> str:
    """A column may have the name of an output, which ONNX does not allow."""
    while name in {spec.name for spec in inputs}:
        name = f"{name}_out"
    return name
