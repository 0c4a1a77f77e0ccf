"""The input's dtype is chosen by what it costs the source's answers to the rows as they came.

What a conversion says is compared with bare ONNX Runtime and the estimator alone, here and nowhere through onnxtool.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightgbm import LGBMClassifier
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, SVR
from xgboost import XGBClassifier

import onnxtool
from onnxtool.errors import UsageError
from onnxtool.models.onnx.artifact import OnnxModel

LIMITS = {"rtol": 1e-4, "atol": 1e-5}
"""The tolerances of `mismatched_rows`: both measure the same."""

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(string)": object,
}


def fed(path: Any, rows: Any) -> dict[str, Any]:
    """What the ONNX model says to rows that are cast as its signature says."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    if len(inputs) == 1:
        given_rows = {inputs[0].name: np.asarray(rows).astype(DTYPES[inputs[0].type])}
    else:
        given_rows = {one.name: rows[[one.name]].to_numpy().astype(DTYPES[one.type]) for one in inputs}
    return dict(zip((one.name for one in session.get_outputs()), session.run(None, given_rows), strict=True))


def mismatched_rows(model: Any, rows: Any, path: Any) -> int:
    """Rows on which the ONNX model says something else than the estimator: another label, or another number."""
    outputs = fed(path, rows)
    off = np.zeros(len(rows), dtype=bool)
    if "label" in outputs:
        off |= outputs["label"].reshape(-1) != model.predict(rows)
    for name, answer in (
        ("probabilities", "predict_proba"),
        ("scores", "decision_function"),
        ("prediction", "predict"),
    ):
        if name in outputs:
            truth = np.asarray(getattr(model, answer)(rows)).reshape(len(rows), -1)
            off |= (np.abs(outputs[name].reshape(len(rows), -1) - truth) > 1e-5 + 1e-4 * np.abs(truth)).any(axis=1)
    return int(off.sum())


@pytest.fixture(scope="module")
def cancer() -> tuple[Any, pd.DataFrame]:
    data = load_breast_cancer(as_frame=True)
    model = make_pipeline(MinMaxScaler(), HistGradientBoostingClassifier(max_iter=10)).fit(data.data, data.target)
    return model, data.data


def record(report: Any) -> Any:
    (entry,) = report.subjects[0].conversion.input_dtypes
    return entry


def test_float64_where_float32_moves_rows_and_the_report_counts_them(tmp_path: Any, cancer: Any) -> None:
    model, rows = cancer
    path = tmp_path / "m.onnx"
    report = onnxtool.convert(model, path, data=rows, **LIMITS)
    assert report.passed
    assert record(report).dtype == report.subjects[0].model.inputs[0].dtype == "float64"
    rounded = rows.astype(np.float32).astype(np.float64)
    truth = model.predict_proba(rows)
    moved = (np.abs(model.predict_proba(rounded) - truth) > 1e-5 + 1e-4 * truth).any(axis=1)
    assert record(report).why.startswith(f"{moved.sum()} of {len(rows)} rows change in float32")
    assert mismatched_rows(model, rows, path) == 0


def test_float32_where_it_is_asked_for_and_drifts_fails_and_says_so(tmp_path: Any, cancer: Any) -> None:
    model, rows = cancer
    path = tmp_path / "m.onnx"
    report = onnxtool.convert(model, path, data=rows, input_dtype="float32", **LIMITS)
    assert not report.passed
    rounding = report.subjects[0].parity.input_rounding
    assert rounding.rows == mismatched_rows(model, rows, path) > 0
    assert rounding.conversion_rows == 0
    assert "--accept-input-rounding" in report.subjects[0].checks[0].message
    assert not onnxtool.verify(path, model, data=rows).passed


def test_rounding_that_is_accepted_is_in_the_report_and_in_the_model(tmp_path: Any, cancer: Any) -> None:
    model, rows = cancer
    path = tmp_path / "m.onnx"
    report = onnxtool.convert(model, path, data=rows, accept_input_rounding=True, **LIMITS)
    assert report.passed
    assert report.subjects[0].model.inputs[0].dtype == "float32"
    rounding = report.subjects[0].parity.input_rounding
    assert rounding.accepted
    assert rounding.rows == mismatched_rows(model, rows, path) > 0
    assert OnnxModel.read(path).metadata["onnxtool.input_rounding"].startswith("accepted")
    assert onnxtool.verify(path, model, data=rows, accept_input_rounding=True).passed


def test_the_explanation_names_the_column_and_the_threshold(tmp_path: Any, cancer: Any) -> None:
    model, rows = cancer
    path = tmp_path / "m.onnx"
    onnxtool.convert(model, path, data=rows, input_dtype="float32")
    found = onnxtool.verify(path, model, data=rows, explain=True).subjects[0].parity.explanation
    assert found.cause.startswith("Rounding of the input moves the row: column '")
    assert "on the other side of the threshold" in found.cause
    column = found.cause.split("'")[1]
    before, after = (float(part) for part in found.cause.split(" is ")[1].split(" in ONNX")[0].split(", and "))
    assert before in rows[column].to_numpy()
    assert after == float(np.float32(before)) != before
    (parts,) = found.error_components
    assert parts.input == pytest.approx(parts.total, rel=1e-3)


def test_float32_rows_keep_a_float32_input_and_later_verification_knows_them(tmp_path: Any, cancer: Any) -> None:
    model, rows = cancer
    path = tmp_path / "m.onnx"
    report = onnxtool.convert(model, path, data=rows.astype(np.float32))
    assert report.passed
    assert record(report).dtype == record(report).rows == "float32"
    assert onnxtool.verify(path, model).passed


def test_a_model_without_data_is_proved_on_float64_rows(tmp_path: Any, cancer: Any) -> None:
    model, rows = cancer
    report = onnxtool.convert(model, tmp_path / "m.onnx")
    assert report.passed
    assert record(report).rows == record(report).dtype == "float64"
    assert mismatched_rows(model, rows, tmp_path / "m.onnx") == 0


def test_a_data_frame_decides_a_column_at_a_time(tmp_path: Any) -> None:
    rng = np.random.default_rng(0)
    count = 600
    frame = pd.DataFrame(
        {
            "customer_id": rng.permutation(np.arange(70_000_000, 70_000_000 + 7 * count, 7)),
            "age": rng.integers(18, 90, count),
            "price": rng.integers(100, 9999, count) / 100,
        }
    )
    target = (frame.customer_id // 700 % 3 == 0) ^ (frame.age > 50)
    columns = make_column_transformer((StandardScaler(), ["customer_id"]), ("passthrough", ["age", "price"]))
    model = make_pipeline(columns, RandomForestClassifier(20, random_state=0)).fit(frame, target.astype(int))
    path = tmp_path / "m.onnx"
    report = onnxtool.convert(model, path, data=frame)
    assert report.passed
    assert {spec.name: spec.dtype for spec in report.subjects[0].model.inputs} == {
        "customer_id": "int64",
        "age": "float32",
        "price": "float32",
    }
    assert mismatched_rows(model, frame, path) == 0


def test_a_dtype_that_the_source_declares_is_not_asked_for(tmp_path: Any) -> None:
    rows = np.eye(3)
    model = Ridge().fit(rows, [0, 1, 2])
    with pytest.raises(UsageError, match="Leave --input-dtype out"):
        onnxtool.convert(
            model, tmp_path / "m.onnx", data=rows, inputs=["X:float32[batch,3]"], input_dtype="float64"
        )


BEFORE = st.sampled_from(
    [
        StandardScaler,
        MinMaxScaler,
        RobustScaler,
        SimpleImputer,
        lambda: KBinsDiscretizer(4, quantile_method="linear", encode="onehot-dense"),
        lambda: PCA(2, random_state=0),
    ]
)
ENCODERS = st.sampled_from(
    [
        lambda: OneHotEncoder(handle_unknown="ignore", sparse_output=False),
        OrdinalEncoder,
        lambda: TargetEncoder(cv=3),
    ]
)
LAST = st.sampled_from(
    [
        lambda: RandomForestClassifier(8, random_state=0),
        lambda: RandomForestRegressor(8, random_state=0),
        lambda: HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=3),
        lambda: GradientBoostingClassifier(n_estimators=8, random_state=0),
        lambda: GradientBoostingRegressor(n_estimators=8, random_state=0),
        lambda: IsolationForest(n_estimators=8, random_state=0),
        lambda: KNeighborsClassifier(3),
        lambda: KNeighborsRegressor(3),
        LogisticRegression,
        SVC,
        SVR,
        lambda: XGBClassifier(n_estimators=5, max_depth=3),
        lambda: LGBMClassifier(n_estimators=5, min_child_samples=3, verbose=-1),
    ]
)


def has_ties(model: Any, rows: Any) -> bool:
    """Whether neighbours are equally far, of which scikit-learn takes those that its tree comes to first."""
    if not isinstance(model[-1], KNeighborsClassifier | KNeighborsRegressor):
        return False
    distances, _ = model[-1].kneighbors(model[:-1].transform(rows), n_neighbors=model[-1].n_neighbors + 1)
    return bool(np.isclose(distances[:, -1], distances[:, -2], rtol=1e-9, atol=0).any())


def check_verdict(model: Any, rows: Any, requested: Any) -> None:
    """What `convert` says of a model is what bare ONNX Runtime and the estimator give."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        report = onnxtool.convert(model, path, data=rows, input_dtype=requested, **LIMITS)
        assert report.passed == (mismatched_rows(model, rows, path) == 0)
    if requested == "auto" and not has_ties(model, rows):
        assert report.passed


REQUESTED = st.sampled_from(["auto", "float32"])


@pytest.mark.filterwarnings("ignore:Bins whose width are too small")  # of few decimals
@given(
    steps=st.tuples(BEFORE, LAST),
    decimals=st.integers(0, 4),
    size=st.sampled_from([1.0, 100.0, 1e9]),
    requested=REQUESTED,
    seed=st.integers(0, 2**16),
)
@settings(max_examples=25, deadline=None)
def test_the_verdict_is_what_a_user_would_find(
    steps: Any, decimals: int, size: float, requested: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = np.round(rng.normal(size, size / 3, (80, 3)), decimals)
    target = (rows[:, 0] + rows[:, 1] > 2 * size).astype(int)
    check_verdict(make_pipeline(*(step() for step in steps)).fit(rows, target), rows, requested)


@pytest.mark.filterwarnings("ignore:Bins whose width are too small")
@given(
    steps=st.tuples(ENCODERS, BEFORE, LAST),
    decimals=st.integers(0, 3),
    requested=REQUESTED,
    seed=st.integers(0, 2**16),
)
@settings(max_examples=15, deadline=None)
def test_the_verdict_on_a_data_frame_is_what_a_user_would_find(
    steps: Any, decimals: int, requested: Any, seed: int
) -> None:
    encoder, scaler, last = steps
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "city": rng.choice(["Oslo", "Rome", "Bern"], 90),
            "price": np.round(rng.lognormal(4, 1, 90), decimals),
            "share": np.round(rng.random(90), decimals + 1),
        }
    )
    target = ((frame.city == "Rome") ^ (frame.price > frame.price.median())).astype(int)
    columns = make_column_transformer((encoder(), ["city"]), (scaler(), ["price", "share"]))
    check_verdict(make_pipeline(columns, last()).fit(frame, target), frame, requested)
