"""pandas' categorical columns in LightGBM and XGBoost, and LightGBM's names, by a judge of bare ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime
import pandas as pd
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.datasets import load_breast_cancer
from xgboost import XGBClassifier, XGBRegressor

import onnxtool


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
