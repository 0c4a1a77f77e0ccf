"""What a fitted scikit-learn model says of its inputs, and how it is run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import BaggingRegressor, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeRegressor

from onnxtool.errors import SourceError, UsageError
from onnxtool.models.reference.sklearn import pipeline
from onnxtool.models.rows.inputs import make_inputs
from onnxtool.models.signature import TensorSpec
from onnxtool.models.sklearn import SklearnModel
from onnxtool.models.sklearn.lineage import Feature, transformed
from onnxtool.models.source import LoadOptions

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(200, 3)) * [1.0, 50.0, 0.01] + [0.0, 1000.0, 5.0]
TARGET = ROWS[:, 0] + ROWS[:, 1] / 50
CLASSES = (TARGET.mean() < TARGET).astype(int)


def opened(model: Any, **options: Any) -> SklearnModel:
    return SklearnModel(model, LoadOptions(**options))


# -- Inputs ---------------------------------------------------------------------------------------------------


def test_numbers_come_as_one_matrix() -> None:
    model = opened(LinearRegression().fit(ROWS, TARGET))
    assert [str(spec) for spec in model.inputs] == ["X:float32[batch,3]"]
    frame = pd.DataFrame(ROWS, columns=["a", "b", "c"])
    assert opened(LinearRegression().fit(frame, TARGET)).inputs[0].columns == ("a", "b", "c")


def test_columns_of_a_data_frame_come_one_by_one() -> None:
    model, frame, _ = pipeline()
    source = opened(model)
    assert [spec.name for spec in source.inputs] == list(frame.columns)
    assert [spec.dtype for spec in source.inputs] == ["float32"] * 4 + ["string"] * 3 + ["int64"]
    assert {spec.shape for spec in source.inputs} == {("batch", 1)}


def test_the_order_of_the_columns_is_the_models_own() -> None:
    model, _, _ = pipeline()
    source = opened(model)
    tensors = make_inputs(source.inputs, 20, 0, source.domains())
    shuffled = dict(reversed(tensors.items()))
    np.testing.assert_array_equal(
        source.predict(tensors)["probabilities"], source.predict(shuffled)["probabilities"]
    )


def test_predictions_are_those_of_the_pipeline() -> None:
    model, frame, _ = pipeline()
    source = opened(model)
    tensors = {
        spec.name: frame[[spec.name]].fillna("").to_numpy(dtype=object)
        if spec.dtype == "string"
        else frame[[spec.name]].to_numpy(dtype=spec.dtype)
        for spec in source.inputs
    }
    got = source.predict(tensors)
    np.testing.assert_array_equal(got["label"], model.predict(frame))
    np.testing.assert_allclose(got["probabilities"], model.predict_proba(frame), rtol=0, atol=0.05)


def test_the_user_decides_on_inputs() -> None:
    model = LinearRegression().fit(pd.DataFrame(ROWS, columns=["a", "b", "c"]), TARGET)
    specs = tuple(TensorSpec.parse(f"{name}:float64[batch,1]") for name in "cab")
    assert [spec.name for spec in opened(model, inputs=specs).inputs] == ["a", "b", "c"]
    whole = (TensorSpec.parse("rows:float64[batch,3]"),)
    assert str(opened(model, inputs=whole).inputs[0]) == "rows:float64[batch,3]"
    with pytest.raises(UsageError, match=r"takes 3 columns: a, b, c"):
        opened(model, inputs=specs[:2])


def test_data_give_what_the_model_leaves_open() -> None:
    frame = pd.DataFrame({"word": ["a", "b"] * 20, "n": np.arange(40.0)})
    model = make_column_transformer((FunctionTransformer(None), ["word"]), ("passthrough", ["n"])).fit(frame)
    data = {"word": np.array(["a", "b"], dtype=object), "n": np.array([1, 2])}
    assert [spec.dtype for spec in opened(model, data=data).inputs] == ["string", "float32"]


def test_text_comes_as_one_string_a_row() -> None:
    texts = ["good film", "bad plot"] * 10
    source = opened(make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [0, 1] * 10))
    assert [str(spec) for spec in source.inputs] == ["text:string[batch,1]"]
    rows = make_inputs(source.inputs, 50, 0, source.domains())["text"]
    words = {word for row in rows.ravel() for word in row.split()}
    assert {"good", "film", "bad", "plot", "unheardof"} == words


def test_missing_text_is_the_empty_string() -> None:
    frame = pd.DataFrame({"kind": pd.Series(["a", "b", None, "b"] * 10, dtype=object), "n": np.arange(40.0)})
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="most_frequent", missing_values=None), OneHotEncoder()), ["kind"]),
        ("passthrough", ["n"]),
    )
    source = opened(columns.fit(frame))
    rows = {"kind": np.array([[""], ["a"]], dtype=object), "n": np.zeros((2, 1), dtype=np.float32)}
    np.testing.assert_array_equal(source.predict(rows)["transformed"], [[0, 1, 0], [1, 0, 0]])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LinearRegression(), "not fitted"),
        (DBSCAN().fit(ROWS), "neither predict nor transform"),
        (DictVectorizer().fit([{"a": 1}]), "dictionaries"),
    ],
)
def test_models_that_cannot_be_run_say_why(model: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        opened(model)


def test_rows_that_the_model_refuses_are_an_error_of_ours() -> None:
    source = opened(OneHotEncoder().fit(np.array([["a"], ["b"]], dtype=object)))
    with pytest.raises(SourceError, match="OneHotEncoder refuses the rows"):
        source.predict({"X": np.array([["never"]], dtype=object)})


# -- Outputs --------------------------------------------------------------------------------------------------


def test_outputs_have_the_agreed_names_and_shapes() -> None:
    rows = {"X": ROWS[:7].astype(np.float32)}
    shapes = {
        LogisticRegression: {"label": (7,), "probabilities": (7, 2)},
        LinearRegression: {"prediction": (7, 1)},
        StandardScaler: {"transformed": (7, 3)},
    }
    for kind, expected in shapes.items():
        got = opened(kind().fit(ROWS, CLASSES)).predict(rows)
        assert {name: array.shape for name, array in got.items()} == expected
    got = opened(KMeans(2, n_init=1, random_state=0).fit(ROWS)).predict(rows)
    assert {name: array.shape for name, array in got.items()} == {"label": (7,), "distances": (7, 2)}


def test_labels_are_whole_numbers_or_text() -> None:
    rows = {"X": ROWS[:3].astype(np.float32)}
    for labels, dtype in ((CLASSES == 1, "int64"), (CLASSES * 1.0, "int64"), (np.array(["n", "y"])[CLASSES], "O")):
        assert opened(LogisticRegression().fit(ROWS, labels)).predict(rows)["label"].dtype == dtype


def test_an_output_does_not_take_a_columns_name() -> None:
    frame = pd.DataFrame({"label": ROWS[:, 0], "b": ROWS[:, 1]})
    model = make_pipeline(make_column_transformer((StandardScaler(), ["label", "b"])), LogisticRegression())
    source = opened(model.fit(frame, CLASSES))
    assert source.outputs == ("label_out", "probabilities")
    assert source.roles == {"label_out": "label", "probabilities": "probabilities"}


# -- Domains --------------------------------------------------------------------------------------------------


def test_categories_and_an_unknown_one_are_tried() -> None:
    model, _, _ = pipeline()
    domains = opened(model).domains()
    assert set(domains["contract"].choices) == {"month-to-month", "one year", "two years", "never seen", ""}
    assert set(domains["payment"].choices) == {"bank transfer", "card", "cheque", "never seen", ""}
    assert set(domains["region"].choices) == {101, 102, 205, 311, 312}
    strict = OneHotEncoder().fit(np.array([["a"], ["b"]], dtype=object))
    assert opened(strict).domains()["X"].columns[0].choices == ("a", "b")


def test_numbers_lie_where_the_training_rows_lay() -> None:
    for scaler in (StandardScaler(), MinMaxScaler(), RobustScaler()):
        source = opened(make_pipeline(scaler, LinearRegression()).fit(ROWS, TARGET))
        columns = source.domains()["X"].columns
        for place, column in enumerate(columns):
            assert column.center == pytest.approx(ROWS[:, place].mean(), abs=ROWS[:, place].std())
            assert 0.3 < column.spread / ROWS[:, place].std() < 3


def test_imputed_columns_have_missing_values() -> None:
    model, _, _ = pipeline()
    source = opened(model)
    rows = make_inputs(source.inputs, 500, 0, source.domains())
    assert 0 < np.isnan(rows["tenure"]).sum() < 100


@pytest.mark.parametrize(
    "scaler", [StandardScaler(), MinMaxScaler(), RobustScaler(), MaxAbsScaler(), "passthrough"]
)
def test_thresholds_are_found_behind_scalers(scaler: Any) -> None:
    """A landmark in raw values, scaled, is a threshold of the tree."""
    model = make_pipeline(SimpleImputer(), scaler, DecisionTreeRegressor(max_depth=3, random_state=0))
    columns = opened(model.fit(ROWS, TARGET)).domains()["X"].columns
    landmarks = [column.landmarks[0] if column.landmarks else np.empty(0) for column in columns]
    tree = model[-1].tree_
    splits = {*zip(tree.feature, tree.threshold, strict=True)}
    assert sum(map(len, landmarks)) == len(splits) - 1  # the leaves have one value in common
    for place, marks in enumerate(landmarks):
        rows = np.repeat(ROWS[:1], len(marks), axis=0)
        rows[:, place] = marks
        scaled = model[:-1].transform(rows)[:, place] if len(marks) else marks
        known = tree.threshold[tree.feature == place]
        for value in scaled:
            assert np.isclose(known, value, rtol=1e-9, atol=1e-12).any()


def test_thresholds_are_found_behind_a_column_transformer() -> None:
    frame = pd.DataFrame(ROWS, columns=["a", "b", "c"]).assign(kind=["x", "y"] * 100)
    columns = ColumnTransformer([("k", OneHotEncoder(), ["kind"]), ("n", StandardScaler(), ["b", "a"])])
    model = make_pipeline(columns, RandomForestClassifier(5, random_state=0)).fit(frame, CLASSES)
    domains = opened(model).domains()
    (marks,) = domains["b"].landmarks
    assert frame["b"].min() < marks.min() <= marks.max() < frame["b"].max()
    assert domains["c"].landmarks == ()


def test_features_are_followed_or_left_out() -> None:
    features = tuple(Feature(place) for place in range(3))
    chosen = make_pipeline(StandardScaler(), SelectKBest(k=2)).fit(ROWS, CLASSES)
    kept = [feature.column for feature in transformed(chosen, features) if feature]
    assert kept == chosen[-1].get_support(indices=True).tolist()
    scaled = transformed(StandardScaler().fit(ROWS), features)[1]
    assert scaled is not None
    assert scaled.raw(StandardScaler().fit_transform(ROWS)[4, 1]) == pytest.approx(ROWS[4, 1])
    assert transformed(FunctionTransformer(np.log1p), features) == ()
    assert transformed(FeatureUnion([("a", StandardScaler())]).fit(ROWS), features) == ()


def test_bagged_and_boosted_trees_give_thresholds() -> None:
    for model in (
        BaggingRegressor(DecisionTreeRegressor(max_depth=2), 3, max_features=2, random_state=0),
        HistGradientBoostingRegressor(max_iter=3),
    ):
        columns = opened(model.fit(ROWS, TARGET)).domains()["X"].columns
        for place in (0, 1):
            (marks,) = columns[place].landmarks
            assert ROWS[:, place].min() <= marks.min()
            assert marks.max() <= ROWS[:, place].max()
    assert columns[0].missing > 0  # histogram gradient boosting takes missing values


@pytest.mark.parametrize("fitted", [np.float32, np.float64])
@pytest.mark.parametrize("given", [np.float32, np.float64])
def test_kmeans_gets_rows_of_the_precision_that_it_was_fitted_on(fitted: type, given: type) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3))
    model = KMeans(3, n_init=1, random_state=0).fit(rows.astype(fitted))
    source = SklearnModel(model, LoadOptions())
    assert source.rows_as[0].dtype == np.dtype(fitted).name
    np.testing.assert_array_equal(
        source.predict({"X": rows.astype(given)})["label"], model.predict(rows.astype(given).astype(fitted))
    )
