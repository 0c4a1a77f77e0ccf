"""scikit-learn models through skl2onnx and our own converters, compared with the estimators by ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import skl2onnx
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier

from onnxtool.converters.framework import Conversion, ConvertOptions
from onnxtool.converters.sklearn import FRAMEWORK
from onnxtool.converters.sklearn.hist_gradient_boosting import float32_at_most
from onnxtool.errors import ConversionError
from onnxtool.models.reference import sklearn as reference
from onnxtool.models.rows.inputs import make_inputs
from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.models.source import LoadOptions, SourceModel
from onnxtool.opening import open_source

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(400, 4)).astype(np.float32)
TARGET = ROWS[:, 0] * 3 + ROWS[:, 1]
BINARY = (TARGET > 0).astype(int)
THREE = np.digitize(TARGET, [-1, 1])
WORDS = np.array(["good", "bad", "film", "the", "a", "plot", "actor", "Zoë"])
TEXTS = [" ".join(row) for row in RNG.choice(WORDS, (400, 6))]


def converted(model: Any, opset: int | None = None, **options: Any) -> tuple[SourceModel, Conversion]:
    source = open_source(model, LoadOptions(**options))
    assert source.framework == "sklearn"
    return source, FRAMEWORK.convert(source, {}, ConvertOptions(opset=opset))


def run(model: onnx.ModelProto, tensors: Tensors) -> Tensors:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, tensors), strict=True))


def assert_agrees(model: Any, atol: float = 2e-5, tensors: Tensors | None = None, **options: Any) -> Conversion:
    """The ONNX model has the source's signature, and says the same, at batches of 1, 3, 17 and 200."""
    source, conversion = converted(model, **options)
    assert [value.name for value in conversion.model.graph.input] == [spec.name for spec in source.inputs]
    rows = tensors or make_inputs(source.inputs, 200, 0, source.domains())
    for batch in (1, 3, 17, 200):
        part = {name: array[:batch] for name, array in rows.items()}
        expected, got = source.predict(part), run(conversion.model, part)
        assert list(got) == list(expected)
        for name, correct in expected.items():
            assert got[name].shape == correct.shape, name
            if name.startswith("label"):
                np.testing.assert_array_equal(got[name], correct, err_msg=name)
            else:
                np.testing.assert_allclose(got[name], correct, rtol=1e-4, atol=atol, err_msg=name)
    return conversion


MODELS: dict[str, Callable[[], Any]] = {
    "logistic": lambda: LogisticRegression().fit(ROWS, BINARY),
    "logistic, labels of text": lambda: LogisticRegression().fit(ROWS, np.array(["a", "b", "c"])[THREE]),
    "logistic, labels of truth values": lambda: LogisticRegression().fit(ROWS, BINARY == 1),
    "linear": lambda: LinearRegression().fit(ROWS, TARGET),
    "linear, two targets": lambda: LinearRegression().fit(ROWS, np.c_[TARGET, -TARGET]),
    "forest": lambda: RandomForestClassifier(10, random_state=0).fit(ROWS, THREE),
    "forest, two targets": lambda: RandomForestRegressor(5, random_state=0).fit(ROWS, np.c_[TARGET, -TARGET]),
    "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=10).fit(ROWS, BINARY),
    "boosted stumps": lambda: AdaBoostClassifier(n_estimators=5).fit(ROWS, THREE),
    "bagging": lambda: BaggingClassifier(DecisionTreeClassifier(), 5, max_features=2).fit(ROWS, THREE),
    "stacking": lambda: StackingClassifier(
        [("forest", RandomForestClassifier(5)), ("linear", LogisticRegression())]
    ).fit(ROWS, THREE),
    "voting": lambda: VotingClassifier(
        [("forest", RandomForestClassifier(5)), ("linear", LogisticRegression())], voting="soft"
    ).fit(ROWS, THREE),
    "several targets": lambda: MultiOutputClassifier(LogisticRegression()).fit(ROWS, np.c_[BINARY, THREE]),
    "scores, two classes": lambda: LinearSVC().fit(ROWS, BINARY),
    "scores, three classes": lambda: LinearSVC().fit(ROWS, THREE),
    "scores of a kernel, two classes": lambda: SVC().fit(ROWS, BINARY),
    "scores of a kernel, three classes": lambda: SVC().fit(ROWS, THREE),
    "scores of ridge": lambda: RidgeClassifier().fit(ROWS, BINARY),
    "neighbours": lambda: KNeighborsClassifier().fit(ROWS, BINARY),
    "clusters, fitted in double precision": lambda: KMeans(3, n_init=1, random_state=0).fit(ROWS.astype(float)),
    "mixture": lambda: GaussianMixture(3, random_state=0).fit(ROWS),
    "outliers by trees": lambda: IsolationForest(n_estimators=10, random_state=0).fit(ROWS),
    "outliers by a kernel": lambda: OneClassSVM().fit(ROWS),
    "components": lambda: PCA(2).fit(ROWS),
    "grid search": lambda: GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2).fit(ROWS, BINARY),
    "random search": lambda: RandomizedSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.1, 1]}, n_iter=2, cv=2
    ).fit(ROWS, BINARY),
    "the first column alone": lambda: make_pipeline(SelectKBest(k=1), LogisticRegression()).fit(ROWS, BINARY),
    "a step that passes first": lambda: make_pipeline("passthrough", LogisticRegression()).fit(ROWS, BINARY),
    "a step that passes between": lambda: make_pipeline(StandardScaler(), None, LogisticRegression()).fit(
        ROWS, BINARY
    ),
    "a step that passes last": lambda: make_pipeline(
        StandardScaler(), make_pipeline("passthrough", MinMaxScaler(), "passthrough")
    ).fit(ROWS),
    "a union that drops and passes": lambda: FeatureUnion(
        [("scaled", StandardScaler()), ("none", "drop"), ("raw", "passthrough")]
    ).fit(ROWS),
    "whole numbers as categories": lambda: OneHotEncoder(handle_unknown="ignore").fit(np.round(ROWS).astype(int)),
}


@pytest.mark.parametrize("name", MODELS)
def test_estimator_agrees(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # toy data: of convergence and the like
        model = MODELS[name]()
    assert_agrees(model, atol=1e-4 if "kernel" in name else 2e-5)


# -- Data frames ----------------------------------------------------------------------------------------------


def test_reference_pipeline_agrees_from_its_files(tmp_path: Path) -> None:
    model, _ = reference.save(tmp_path)
    conversion = assert_agrees(str(model))
    assert any("divides" in choice for choice in conversion.choices)


def test_names_that_are_no_identifiers_are_kept() -> None:
    frame = pd.DataFrame(ROWS, columns=["a b", "ü", "x/y", "1st"])
    columns = make_column_transformer((StandardScaler(), list(frame.columns)))
    assert_agrees(make_pipeline(columns, LogisticRegression()).fit(frame, BINARY))


def test_a_column_may_have_the_name_of_an_output() -> None:
    frame = pd.DataFrame(ROWS[:, :2], columns=["label", "probabilities"])
    columns = make_column_transformer((StandardScaler(), ["probabilities", "label"]))
    assert_agrees(make_pipeline(columns, LogisticRegression()).fit(frame, BINARY))


@pytest.mark.parametrize("missing", [np.nan, None])
@pytest.mark.parametrize("strategy", ["most_frequent", "constant"])
def test_missing_text_is_imputed(strategy: str, missing: Any) -> None:
    kinds = np.array(["x", "y", missing, "x"] * 100, dtype=object)
    frame = pd.DataFrame({"kind": pd.Series(kinds, dtype=object), "n": ROWS[:, 0]})
    imputer = SimpleImputer(strategy=strategy, missing_values=missing, fill_value="absent")
    columns = make_column_transformer((make_pipeline(imputer, OneHotEncoder()), ["kind"]), ("passthrough", ["n"]))
    model = make_pipeline(columns, LogisticRegression()).fit(frame, BINARY)
    rows = {"kind": np.array([["x"], ["y"], [""]] * 67, dtype=object)[:200], "n": ROWS[:200, :1]}
    assert_agrees(model, tensors=rows)
    assert model[0].transformers_[0][1][0].missing_values is missing  # put back after the conversion


def test_missing_text_is_a_category() -> None:
    frame = pd.DataFrame({"kind": pd.Series(["x", "y", None, "x"] * 100, dtype=object), "n": ROWS[:, 0]})
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["kind"]), ("passthrough", ["n"]))
    assert_agrees(make_pipeline(columns, LogisticRegression()).fit(frame, BINARY))


def test_truth_values_are_encoded() -> None:
    frame = pd.DataFrame({"flag": ROWS[:, 1] > 0, "n": ROWS[:, 0]})
    columns = make_column_transformer((OneHotEncoder(), ["flag"]), (StandardScaler(), ["n"]))
    assert_agrees(make_pipeline(columns, LogisticRegression()).fit(frame, BINARY))


def test_inputs_from_options() -> None:
    model = LogisticRegression().fit(pd.DataFrame(ROWS, columns=list("abcd")), BINARY)
    one_by_one = tuple(TensorSpec.parse(f"{name}:float32[batch,1]") for name in "badc")
    assert_agrees(model, inputs=one_by_one)
    mixed = tuple(TensorSpec.parse(f"{name}:{'int64' if name == 'b' else 'float32'}[batch,1]") for name in "abcd")
    assert_agrees(model, inputs=mixed)
    assert_agrees(model, inputs=(TensorSpec.parse("rows:float64[batch,4]"),), atol=1e-12)


def test_trees_take_double_precision() -> None:
    model = DecisionTreeClassifier(random_state=0).fit(ROWS, BINARY)
    assert_agrees(model, inputs=(TensorSpec.parse("X:float64[batch,4]"),))


# -- Text -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vectorizer", [TfidfVectorizer(), CountVectorizer(ngram_range=(1, 2))])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_text_agrees(vectorizer: Any, ascii_only: bool) -> None:
    texts = [text.replace("Zoë", "Zoe") for text in TEXTS] if ascii_only else TEXTS
    model = make_pipeline(vectorizer, LogisticRegression()).fit(texts, BINARY)
    rows = np.array([*texts[:190], "GOOD, bad!  film", "a plot", "x", "never-heard of", *texts[:6]], dtype=object)
    assert_agrees(model, tensors={"text": rows.reshape(-1, 1)})


def test_a_column_of_text_agrees() -> None:
    frame = pd.DataFrame({"review": TEXTS, "n": ROWS[:, 0]})
    columns = ColumnTransformer([("words", TfidfVectorizer(), "review"), ("n", StandardScaler(), ["n"])])
    assert_agrees(make_pipeline(columns, LogisticRegression()).fit(frame, BINARY))


# -- No drift before trees ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler(), RobustScaler(), MaxAbsScaler()])
def test_no_row_drifts_behind_a_scaler(scaler: Any) -> None:
    """With skl2onnx's own options a standard scaler before this forest drifts on 174 rows of the 1,797."""
    digits = load_digits()
    model = make_pipeline(scaler, RandomForestClassifier(30, random_state=0)).fit(digits.data, digits.target)
    source, conversion = converted(model)
    rows = {"X": digits.data.astype(np.float32)}
    expected, got = source.predict(rows), run(conversion.model, rows)
    np.testing.assert_array_equal(got["label"], expected["label"])
    assert np.abs(got["probabilities"] - expected["probabilities"]).max() < 1e-5


# -- Histogram gradient boosting ------------------------------------------------------------------------------


def with_missing() -> tuple[Any, Any]:
    rows = RNG.normal(size=(800, 4))
    rows[RNG.random(rows.shape) < 0.1] = np.nan
    return rows, np.nansum(rows, axis=1)


@pytest.mark.parametrize("labels", ["binary", "three", "text"])
def test_histogram_gradient_boosting_classifies(labels: str) -> None:
    rows, target = with_missing()
    three = np.digitize(target, [-1, 1])
    correct = {"binary": target > 0, "three": three, "text": np.array(["a", "b", "c"])[three]}[labels]
    assert_agrees(HistGradientBoostingClassifier(max_iter=20).fit(rows, correct))


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "poisson", "gamma"])
def test_histogram_gradient_boosting_regresses(loss: str) -> None:
    rows, target = with_missing()
    assert_agrees(HistGradientBoostingRegressor(loss=loss, max_iter=20).fit(rows, np.exp(target / 4)))


def test_histogram_gradient_boosting_takes_double_precision() -> None:
    rows, target = with_missing()
    model = HistGradientBoostingRegressor(max_iter=20).fit(rows, target)
    thresholds = np.unique([n["num_threshold"] for group in model._predictors for n in group[0].nodes])
    near = np.concatenate([thresholds, np.nextafter(thresholds, np.inf), np.nextafter(thresholds, -np.inf)])[:800]
    rows[: len(near), 0] = near
    assert_agrees(model, inputs=(TensorSpec.parse("X:float64[batch,4]"),), tensors={"X": rows[:200]})


def test_categories_of_histogram_gradient_boosting() -> None:
    rows, target = with_missing()
    rows[:, 1] = RNG.integers(0, 40, len(rows))  # more than 32, so that a set spans words
    target = np.nan_to_num(target) + np.sin(rows[:, 1])
    assert_agrees(HistGradientBoostingRegressor(max_iter=20, categorical_features=[1]).fit(rows, target))
    kinds = np.array(["x", "y", "z", None], dtype=object)[RNG.integers(0, 4, len(rows))]
    frame = pd.DataFrame(rows, columns=list("abcd")).assign(kind=pd.Categorical(kinds))
    model = HistGradientBoostingRegressor(max_iter=20, categorical_features="from_dtype")
    source, _ = converted(model.fit(frame, target + 3 * (kinds == "x")))
    assert [spec.dtype for spec in source.inputs] == ["float32"] * 4 + ["string"]
    assert_agrees(model)


@given(st.floats(allow_nan=False, width=64), st.floats(allow_nan=False, width=32))
def test_rounded_threshold_splits_float32_rows_as_before(threshold: float, x: float) -> None:
    assert (x <= threshold) == (x <= float32_at_most(threshold))
    with np.errstate(over="ignore"):
        near = np.float32(threshold)
        neighbours = (near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf)))
    for neighbour in neighbours:
        assert (float(neighbour) <= threshold) == (float(neighbour) <= float32_at_most(threshold))


# -- Options and errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [11, 15, 18, FRAMEWORK.max_opset])
def test_opset_is_the_one_given(opset: int) -> None:
    model, _, _ = reference.pipeline()
    _, conversion = converted(model, opset=opset)
    assert {entry.domain: entry.version for entry in conversion.model.opset_import}[""] == opset
    assert_agrees(model)


def test_no_zipmap_anywhere() -> None:
    model, _, _ = reference.pipeline()
    _, conversion = converted(model)
    assert "ZipMap" not in {node.op_type for node in conversion.model.graph.node}


class Doubler(TransformerMixin, BaseEstimator):
    """An estimator whose code cannot be traced."""

    def fit(self, rows: Any, target: Any = None) -> Doubler:
        self.n_features_in_ = rows.shape[1]
        return self

    def transform(self, rows: Any) -> Any:
        return np.array([[2 * value for value in row] for row in rows])


def test_a_pipeline_is_left_as_it_was() -> None:
    model = make_pipeline(StandardScaler(), "passthrough", LogisticRegression()).fit(ROWS, BINARY)
    before = list(model.steps)
    converted(model)
    assert model.steps == before


def test_an_estimator_without_conversion_is_named() -> None:
    model = make_pipeline(StandardScaler(), Doubler()).fit(ROWS[:50])
    with pytest.raises(
        ConversionError,
        match=r"Doubler cannot be written.*test_sklearn\.py, line \d+, in transform: .* a loop over the rows",
    ):
        converted(model)


def test_a_converters_failure_is_one_sentence() -> None:
    with pytest.raises(ConversionError) as caught:
        converted(SVC(kernel="precomputed").fit(ROWS @ ROWS.T, BINARY))
    assert len(str(caught.value).splitlines()) == 1
    assert "SVC" in str(caught.value)


def test_files_are_recognised_by_content(tmp_path: Path) -> None:
    path = tmp_path / "no-extension"
    joblib.dump(LinearRegression().fit(ROWS, TARGET), path, compress=3)
    assert FRAMEWORK.recognises(str(path))
    path.write_text("a,b\n1,2\n")
    assert not FRAMEWORK.recognises(str(path))
    assert not FRAMEWORK.recognises(str(tmp_path))
    assert not FRAMEWORK.owns({"a": "dictionary"})


def test_skl2onnx_is_as_it_was_after_a_conversion() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    source = open_source(KernelRidge().fit(rows, rows[:, 0]), LoadOptions())
    FRAMEWORK.convert(source, {}, ConvertOptions())
    assert KernelRidge not in skl2onnx.supported_converters()
    with pytest.raises(skl2onnx.common.exceptions.MissingShapeCalculator):
        skl2onnx.to_onnx(KernelRidge().fit(rows, rows[:, 0]), rows)


@pytest.mark.parametrize(
    "features",
    [
        PolynomialFeatures(3),
        PolynomialFeatures(3, interaction_only=True, include_bias=False),
        PolynomialFeatures((2, 3), include_bias=False),
        PolynomialFeatures(0),
    ],
    ids=str,
)
def test_products_come_in_their_order(features: PolynomialFeatures, tmp_path: Path) -> None:
    from onnxtool.api import convert

    rows = np.random.default_rng(1).normal(size=(50, 4))
    report = convert(features.fit(rows), tmp_path / "m.onnx", data=rows, inputs=["X:float64[batch,4]"])
    assert report.passed
