"""pandas' categorical columns in LightGBM and XGBoost, and LightGBM's names, by a judge of bare ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime
import pandas as pd
import pytest
from catboost import CatBoostClassifier
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder
from xgboost import XGBClassifier, XGBRegressor

import onnxtool
from benchmarks.coverage.bare import rows_off
from onnxtool.errors import ConversionError


def rows(seed: int, cities: list[str]) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    found = pd.DataFrame(
        {
            "age": generator.integers(18, 90, 600),
            "city": pd.Categorical(generator.choice(cities, 600)),
            "pay": generator.normal(size=600).astype(np.float32).astype(float),
            "floor": pd.Categorical(generator.integers(1, 4, 600) * 10),
        }
    )
    found.loc[::11, "city"] = None
    return found


TRAIN, FRESH = rows(0, ["Oslo", "Rome", "Bern"]), rows(1, ["Oslo", "Rome", "Bern", "Paris"])
TARGET = ((TRAIN.age > 50) ^ (TRAIN.city == "Rome")).astype(int)
MODELS: dict[str, Any] = {
    "LightGBM": LGBMClassifier(n_estimators=20, min_child_samples=5, verbose=-1),
    "LightGBM regressor": LGBMRegressor(n_estimators=20, verbose=-1),
    "XGBoost": XGBClassifier(n_estimators=20, enable_categorical=True, max_cat_to_onehot=1),
    "XGBoost regressor": XGBRegressor(n_estimators=10, enable_categorical=True),
}


@pytest.mark.parametrize("name", MODELS)
def test_categories_go_in_as_they_are(name: str, tmp_path: Path) -> None:
    model = MODELS[name].fit(TRAIN, TARGET)
    joblib.dump(model, tmp_path / "m.joblib")
    FRESH.to_csv(tmp_path / "rows.csv", index=False)
    FRESH.to_parquet(tmp_path / "rows.parquet")
    for data in ("rows.csv", "rows.parquet"):
        report = onnxtool.convert(tmp_path / "m.joblib", tmp_path / "m.onnx", data=tmp_path / data, sandbox=None)
        assert report, report.subjects[0].checks
    assert onnxtool.convert(model, tmp_path / "made_up.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert {value.name: value.type for value in session.get_inputs()}["city"] == "tensor(string)"
    text = FRESH.city.astype(object).where(FRESH.city.notna(), "").to_numpy(dtype=object)
    feeds = {name: FRESH[name].to_numpy().astype(np.float32)[:, None] for name in ("age", "pay", "floor")}
    found = session.run(None, {**feeds, "city": text[:, None]})[-1]
    seen = FRESH.assign(city=FRESH.city.cat.remove_categories("Paris")) if name.startswith("XGBoost") else FRESH
    expected = model.predict_proba(seen) if hasattr(model, "predict_proba") else model.predict(seen)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_inputs_that_do_not_fit_the_categories_are_refused() -> None:
    model = MODELS["LightGBM"].fit(TRAIN, TARGET)
    with pytest.raises(onnxtool.OnnxtoolError, match=r"city:string\[batch,1\]"):
        onnxtool.convert(model, inputs=["X:float32[batch,4]"])


def test_lightgbm_takes_the_csv_that_it_was_fitted_on(tmp_path: Path) -> None:
    data = load_breast_cancer(as_frame=True)
    joblib.dump(LGBMClassifier(n_estimators=5, verbose=-1).fit(data.data, data.target), tmp_path / "m.joblib")
    data.data.to_csv(tmp_path / "rows.csv", index=False)
    source = tmp_path / "m.joblib"
    assert onnxtool.convert(source, tmp_path / "m.onnx", data=tmp_path / "rows.csv", sandbox=None)
    assert onnxtool.verify(tmp_path / "m.onnx", source, data=tmp_path / "rows.csv", sandbox=None)


@pytest.mark.parametrize("encoder", [OneHotEncoder, OrdinalEncoder])
def test_catboost_names_the_encoders_with_the_users_rows_too_and_they_convert(encoder, tmp_path: Path) -> None:
    known = TRAIN[["age", "pay"]].assign(city=TRAIN["city"].astype(object).fillna("none"))
    boosting = CatBoostClassifier(iterations=4, verbose=False, allow_writing_files=False)
    alone = boosting.copy().fit(known, TARGET, cat_features=["city"])
    with pytest.raises(ConversionError, match=f"hashes of their categories.*{encoder.__name__}"):
        onnxtool.convert(alone, tmp_path / "m.onnx", data=known, sandbox=None)
    columns = make_column_transformer((encoder(), ["city"]), remainder="passthrough", sparse_threshold=0)
    encoded = make_pipeline(columns, boosting).fit(known, TARGET)
    assert onnxtool.convert(encoded, tmp_path / "m.onnx", data=known, sandbox=None).passed
    assert rows_off(encoded, known, tmp_path / "m.onnx") == 0
