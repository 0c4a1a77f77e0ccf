"""XGBoost, LightGBM and CatBoost, alone, from files and in pipelines, compared with the libraries themselves."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from onnxtool.converters.boosting import FRAMEWORK, ZERO, prepared_text
from onnxtool.converters.framework import ConvertOptions, frameworks
from onnxtool.converters.sklearn import convert_registered
from onnxtool.errors import ConversionError, SourceError, UsageError
from onnxtool.models.rows.inputs import make_inputs
from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.models.source import LoadOptions
from onnxtool.opening import open_source

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(1500, 5)).astype(np.float32)
ROWS[RNG.random(ROWS.shape) < 0.1] = np.nan
COMPLETE = np.nan_to_num(ROWS)
NAMED = pd.DataFrame(ROWS, columns=["age", "b c", "x", "y", "z"])
TARGET = np.nansum(ROWS, axis=1)
BINARY = (TARGET > 0).astype(int)
THREE = np.digitize(TARGET, [-1, 1])
TEXT = np.array(["low", "mid", "high"])[THREE]
CODED = ROWS.copy()
CODED[:, 1] = RNG.integers(0, 8, len(ROWS))
CODED_TARGET = np.nan_to_num(TARGET) + CODED[:, 1] % 3

LGB: dict[str, Any] = {"n_estimators": 20, "verbose": -1}
BAG = LGB | {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}
CAT: dict[str, Any] = {"iterations": 20, "verbose": 0, "allow_writing_files": False}

MODELS: dict[str, Callable[[], Any]] = {
    "xgboost classifier": lambda: xgboost.XGBClassifier(n_estimators=20).fit(NAMED, BINARY),
    "xgboost, three classes": lambda: xgboost.XGBClassifier(n_estimators=20).fit(ROWS, THREE),
    "xgboost regressor": lambda: xgboost.XGBRegressor(n_estimators=20).fit(NAMED, TARGET),
    "xgboost, no value missing": lambda: xgboost.XGBRegressor(n_estimators=20).fit(COMPLETE, TARGET),
    "xgboost poisson": lambda: xgboost.XGBRegressor(n_estimators=20, objective="count:poisson").fit(
        ROWS, np.exp(TARGET / 4)
    ),
    "xgboost forest": lambda: xgboost.XGBRFClassifier(n_estimators=20).fit(ROWS, BINARY),
    "xgboost ranker": lambda: xgboost.XGBRanker(n_estimators=5).fit(ROWS, BINARY, qid=np.zeros(len(ROWS))),
    "xgboost categories": lambda: xgboost.XGBRegressor(
        n_estimators=20, enable_categorical=True, feature_types=["q", "c", "q", "q", "q"]
    ).fit(CODED, CODED_TARGET),
    "xgboost, stopped early": lambda: xgboost.XGBRegressor(n_estimators=100, early_stopping_rounds=2).fit(
        ROWS[:1000], TARGET[:1000], eval_set=[(ROWS[1000:], TARGET[1000:])], verbose=False
    ),
    "lightgbm classifier": lambda: lightgbm.LGBMClassifier(**LGB).fit(NAMED, BINARY),
    "lightgbm, labels of text": lambda: lightgbm.LGBMClassifier(**LGB).fit(ROWS, TEXT),
    "lightgbm regressor": lambda: lightgbm.LGBMRegressor(**LGB).fit(ROWS, TARGET),
    "lightgbm, no value missing": lambda: lightgbm.LGBMRegressor(**LGB).fit(COMPLETE, TARGET),
    "lightgbm poisson": lambda: lightgbm.LGBMRegressor(objective="poisson", **LGB).fit(ROWS, np.exp(TARGET / 4)),
    "lightgbm forest": lambda: lightgbm.LGBMRegressor(**BAG).fit(ROWS, TARGET),
    "lightgbm forest of classes": lambda: lightgbm.LGBMClassifier(**BAG).fit(ROWS, BINARY),
    "lightgbm ranker": lambda: lightgbm.LGBMRanker(**LGB).fit(ROWS, BINARY, group=[len(ROWS)]),
    "lightgbm categories": lambda: lightgbm.LGBMRegressor(**LGB).fit(CODED, CODED_TARGET, categorical_feature=[1]),
    "catboost classifier": lambda: catboost.CatBoostClassifier(**CAT).fit(NAMED, BINARY),
    "catboost, labels of text": lambda: catboost.CatBoostClassifier(**CAT).fit(ROWS, TEXT),
    "catboost, labels of truth values": lambda: catboost.CatBoostClassifier(**CAT).fit(ROWS, BINARY == 1),
    "catboost regressor": lambda: catboost.CatBoostRegressor(**CAT).fit(ROWS, TARGET),
    "catboost, no value missing": lambda: catboost.CatBoostRegressor(**CAT).fit(COMPLETE, TARGET),
    "catboost poisson": lambda: catboost.CatBoostRegressor(loss_function="Poisson", **CAT).fit(
        ROWS, np.exp(TARGET / 4)
    ),
}


def fitted(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own about categories and column names
        return make()


def assert_agrees(model: Any, tensors: Tensors | None = None) -> None:
    """Same outputs, NaN and the trees' own thresholds among the rows, at batches of 1, 3, 17 and 600."""
    source = open_source(model, LoadOptions())
    framework = frameworks()[source.framework]
    proto: onnx.ModelProto = framework.convert(source, {}, ConvertOptions()).model
    onnx.checker.check_model(proto)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = tensors or make_inputs(source.inputs, 600, 0, source.domains())
    for batch in (1, 3, 17, 600):
        part = {name: array[:batch] for name, array in rows.items()}
        expected = source.predict(part)
        got = dict(zip((value.name for value in session.get_outputs()), session.run(None, part), strict=True))
        assert list(got) == list(expected)
        for name, reference in expected.items():
            assert got[name].shape == reference.shape
            if name == "label":
                np.testing.assert_array_equal(got[name], reference)
            else:
                np.testing.assert_allclose(got[name], reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_model_agrees(name: str) -> None:
    assert_agrees(fitted(MODELS[name]))


@pytest.mark.parametrize(
    "name", ["xgboost, three classes", "xgboost regressor", "lightgbm regressor", "catboost classifier"]
)
def test_made_up_rows_visit_thresholds_and_missing_values(name: str) -> None:
    source = open_source(fitted(MODELS[name]), LoadOptions())
    (domain,) = source.domains().values()
    assert all(len(column.landmarks[0]) > 5 for column in domain.columns)
    rows = make_inputs(source.inputs, 600, 0, source.domains())[source.inputs[0].name]
    assert 0 < np.isnan(rows).sum() < rows.size / 5


# -- Files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["json", "ubj"])
@pytest.mark.parametrize("objective", ["binary:logistic", "multi:softprob", "reg:squarederror"])
def test_xgboost_files(objective: str, suffix: str, tmp_path: Path) -> None:
    target = {"binary:logistic": BINARY, "multi:softprob": THREE}.get(objective, TARGET)
    params = {"objective": objective} | ({"num_class": 3} if objective.startswith("multi") else {})
    path = tmp_path / f"model.{suffix}"
    xgboost.train(params, xgboost.DMatrix(NAMED, label=target), 10).save_model(path)
    assert_agrees(str(path))


@pytest.mark.parametrize("objective", ["binary", "multiclass", "regression"])
def test_lightgbm_files(objective: str, tmp_path: Path) -> None:
    target = {"binary": BINARY, "multiclass": THREE}.get(objective, TARGET)
    params = {"objective": objective, "verbose": -1} | ({"num_class": 3} if objective == "multiclass" else {})
    path = tmp_path / "model.txt"
    lightgbm.train(params, lightgbm.Dataset(ROWS, target), 10).save_model(path)
    assert_agrees(str(path))


@pytest.mark.parametrize("name", ["catboost classifier", "catboost, labels of text", "catboost poisson"])
def test_catboost_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.cbm"
    MODELS[name]().save_model(str(path))
    assert_agrees(str(path))


def test_files_are_recognised_by_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"CBM", b"tree\nno", b'{"learn":1}', b"{L\x00rest", json.dumps([1]).encode()):
        path.write_bytes(content)
        assert not FRAMEWORK.recognises(str(path))
    assert not FRAMEWORK.recognises(str(tmp_path))


@pytest.mark.parametrize("head", [b"CBM1\x00\x00", b'{"learner": {}}', b"tree\nversion=v4\nnum_class=1\n"])
def test_damaged_files_are_errors_of_ours(head: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(head)
    with pytest.raises(SourceError, match="damaged"):
        open_source(str(path), LoadOptions())


# -- Pipelines ------------------------------------------------------------------------------------------------

FRAME = pd.DataFrame({"n": COMPLETE[:, 0], "m": COMPLETE[:, 1], "kind": np.array(["a", "b", "c"])[THREE]})

LAST_STEPS: dict[str, Callable[[], Any]] = {
    "xgboost": lambda: xgboost.XGBClassifier(n_estimators=10),
    "lightgbm": lambda: lightgbm.LGBMClassifier(**LGB),
    "catboost": lambda: catboost.CatBoostClassifier(**CAT),
    "xgboost regressor": lambda: xgboost.XGBRegressor(n_estimators=10),
    "lightgbm regressor": lambda: lightgbm.LGBMRegressor(**LGB),
    "catboost regressor": lambda: catboost.CatBoostRegressor(**CAT),
}


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("name", LAST_STEPS)
def test_last_step_of_a_pipeline(name: str, sparse: bool) -> None:
    """A sparse matrix leaves zeros out, and XGBoost takes what is left out for missing."""
    columns = make_column_transformer(
        (StandardScaler(), ["n", "m"]),
        (OneHotEncoder(handle_unknown="ignore"), ["kind"]),
        sparse_threshold=1.0 if sparse else 0.0,
    )
    target = TARGET if "regressor" in name else BINARY
    assert_agrees(fitted(lambda: make_pipeline(columns, LAST_STEPS[name]()).fit(FRAME, target)))


# -- LightGBM's text ------------------------------------------------------------------------------------------


def test_prepared_text_agrees_at_every_threshold() -> None:
    """The rounded model, and the first, at each threshold and at its neighbours."""
    model = lightgbm.LGBMRegressor(**LGB).fit(COMPLETE.astype(float) + RNG.random(COMPLETE.shape), TARGET)
    rounded = lightgbm.Booster(model_str=prepared_text(model.booster_.model_to_string()))
    (domain,) = open_source(model, LoadOptions()).domains().values()
    marks = np.float32(np.unique(np.concatenate([column.landmarks[0] for column in domain.columns])))
    near = np.concatenate(
        [marks, np.nextafter(marks, np.float32(9)), np.nextafter(marks, np.float32(-9)), [ZERO, 0]]
    )
    rows = RNG.choice(near, size=(3000, 5)).astype(np.float64)
    np.testing.assert_array_equal(model.booster_.predict(rows), rounded.predict(rows))


def test_numbers_next_to_zero_are_zero() -> None:
    model = lightgbm.LGBMRegressor(**LGB).fit(np.where(np.abs(COMPLETE) < 0.5, 0, COMPLETE), TARGET)
    tiny = np.float32([ZERO, -ZERO, 0, -0.0, 1e-38, np.nextafter(np.float32(ZERO), np.float32(1)), -1e-30])
    assert_agrees(model, {"X": RNG.choice(tiny, size=(600, 5))})


# -- Adversarial rows -----------------------------------------------------------------------------------------


@settings(max_examples=10)
@given(st.sampled_from(sorted(LAST_STEPS)), st.integers(0, 2**16), st.sampled_from([1.0, 1e-3, 1e30, 255.0]))
def test_double_rows_at_thresholds_take_the_same_branch(name: str, seed: int, size: float) -> None:
    """In a pipeline, which can take float64: at thresholds, one step of either precision away, missing, endless."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(120, 5)) * size
    rows[random.random(rows.shape) < 0.1] = np.nan
    kinds = (np.nansum(rows, axis=1) > 0).astype(int)
    model = LAST_STEPS[name]().fit(rows, kinds if "regressor" not in name else kinds + random.normal(size=120))
    (domain,) = open_source(model, LoadOptions()).domains().values()
    marks = np.concatenate([np.ravel(column.landmarks[0]) for column in domain.columns if column.landmarks])
    single = marks.astype(np.float32)
    steps = [marks, *(np.nextafter(marks, way) for way in (-np.inf, np.inf)), single]
    steps += [np.nextafter(single, np.float32(way)) for way in (-np.inf, np.inf)]
    extremes = [np.nan, 0.0, -0.0, ZERO, -ZERO, np.nextafter(ZERO, 1), np.nextafter(-ZERO, -1), 1e-300]
    if "xgboost" not in name:  # which refuses infinite numbers
        extremes += [np.inf, -np.inf]
    near = random.choice(np.concatenate([*steps, extremes]).astype(np.float64), size=(2000, 5))
    pipeline = make_pipeline(model)
    source = open_source(pipeline, LoadOptions(inputs=(TensorSpec.parse("X:float64[batch,5]"),)))
    proto = convert_registered(source, 20).model
    answers = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"X": near})
    for reference, got in zip(source.predict({"X": near}).values(), answers, strict=True):
        np.testing.assert_allclose(got.reshape(reference.shape), reference, rtol=1e-5, atol=2e-6)


# -- What is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: xgboost.XGBRegressor(n_estimators=3, booster="dart").fit(ROWS, TARGET), "'dart'"),
        (lambda: xgboost.XGBRegressor(n_estimators=3).fit(ROWS, np.c_[TARGET, TARGET]), "several targets"),
        (lambda: lightgbm.LGBMRegressor(zero_as_missing=True, **LGB).fit(COMPLETE, TARGET), "zero_as_missing"),
        (
            lambda: catboost.CatBoostRegressor(loss_function="MultiRMSE", **CAT).fit(ROWS, np.c_[TARGET, TARGET]),
            "several targets",
        ),
        (lambda: catboost.CatBoostRegressor(**CAT).fit(FRAME, TARGET, cat_features=["kind"]), "categorical"),
    ],
)
def test_what_onnx_cannot_say_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        source = open_source(fitted(make), LoadOptions())
        FRAMEWORK.convert(source, {}, ConvertOptions())


def test_inputs_that_do_not_fit_are_refused() -> None:
    model = xgboost.XGBRegressor(n_estimators=3).fit(ROWS, TARGET)
    for text in ("X:float16[batch,5]", "X:float32[batch,4]"):
        with pytest.raises(UsageError, match=r"X:float32\[batch,5\]"):
            open_source(model, LoadOptions(inputs=(TensorSpec.parse(text),)))
    assert (
        open_source(model, LoadOptions(inputs=(TensorSpec.parse("rows:float32[batch,5]"),))).inputs[0].name
        == "rows"
    )


@pytest.mark.parametrize(
    "model", [xgboost.XGBClassifier(), lightgbm.LGBMClassifier(), catboost.CatBoostClassifier()]
)
def test_a_model_without_training_is_named(model: Any) -> None:
    with pytest.raises(SourceError, match="not fitted"):
        open_source(model, LoadOptions())
