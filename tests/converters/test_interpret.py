"""Explainable boosting machines: score and contributions, by a judge of bare ONNX Runtime and InterpretML alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from interpret.glassbox import ExplainableBoostingClassifier, ExplainableBoostingRegressor
from interpret.privacy import DPExplainableBoostingClassifier, DPExplainableBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import onnxtool

pytestmark = pytest.mark.filterwarnings("ignore")  # of InterpretML, about small data

QUICK: dict[str, Any] = {"outer_bags": 1, "n_jobs": 1, "max_rounds": 60, "random_state": 0}
CATEGORIES = ["continuous", "nominal", "nominal", "nominal"]


def frame(count: int, seed: int) -> pd.DataFrame:
    """Rows with what is missing and, from the second seed on, a city that training has not seen."""
    generator = np.random.default_rng(seed)
    cities = ["Oslo", "Rome", "Bern", *(["Nice"] if seed else [])]
    rows = pd.DataFrame(
        {
            "age": generator.normal(40, 9, count),
            "city": generator.choice(cities, count),
            "rooms": generator.integers(1, 6 if seed else 5, count),
            "flag": generator.random(count) > 0.5,
        }
    )
    rows.loc[::9, "age"] = np.nan
    rows.loc[::11, "city"] = None
    return rows


TRAIN, FRESH = frame(600, 0), frame(2000, 1)
TARGET = TRAIN.rooms + TRAIN.age.fillna(30) / 20
BINARY = (TRAIN.age > 40) ^ (TRAIN.city == "Rome")
THREE = np.select([TRAIN.rooms > 3, TRAIN.rooms < 2], ["large", "small"], "middle")
NUMBERS = ["age", "rooms"]
WHOLE = TRAIN.age.notna()

CASES: dict[str, tuple[Any, list[str], Any]] = {
    "binary": (ExplainableBoostingClassifier(interactions=3, **QUICK), list(TRAIN), BINARY),
    "numbers": (ExplainableBoostingClassifier(interactions=1, **QUICK), NUMBERS, BINARY),
    "nominal": (ExplainableBoostingClassifier(feature_types=CATEGORIES, **QUICK), list(TRAIN), BINARY),
    "multiclass": (ExplainableBoostingClassifier(interactions=0, **QUICK), list(TRAIN), THREE),
    "regressor": (ExplainableBoostingRegressor(interactions=3, **QUICK), list(TRAIN), TARGET),
    "log link": (ExplainableBoostingRegressor(objective="poisson_deviance", **QUICK), NUMBERS, TARGET.round()),
    "private": (DPExplainableBoostingClassifier(epsilon=2, max_rounds=30, random_state=0), NUMBERS, BINARY),
    "private regressor": (
        DPExplainableBoostingRegressor(epsilon=2, max_rounds=30, random_state=0),
        NUMBERS,
        TARGET,
    ),
    "pipeline": (make_pipeline(StandardScaler(), ExplainableBoostingClassifier(**QUICK)), NUMBERS, BINARY),
}


def single(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with numbers that float32 holds."""
    return rows.assign(age=rows.age.astype(np.float32).astype(float))


@pytest.mark.parametrize("name", CASES)
def test_scores_and_contributions_are_those_of_the_machine(name: str, tmp_path: Path) -> None:
    model, columns, target = CASES[name]
    private = name.startswith("private")  # which takes nothing that is missing
    train = TRAIN[columns][WHOLE] if private else TRAIN[columns]
    model.fit(train, np.asarray(target)[WHOLE] if private else target)
    fresh = single(FRESH[columns].dropna() if private else FRESH[columns])
    if "city" in columns and name != "nominal":
        fresh = fresh.assign(flag=fresh.flag.astype(bool))
    path = tmp_path / "m.onnx"
    assert onnxtool.convert(model, path, data=fresh)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(bool)": bool}
    feeds = {}
    for value in session.get_inputs():
        given = fresh.to_numpy() if value.name == "X" else fresh[[value.name]].to_numpy()
        text = value.type == "tensor(string)"
        feeds[value.name] = np.where(pd.isna(given), "", given) if text else given.astype(kinds[value.type])
    found = dict(zip([output.name for output in session.get_outputs()], session.run(None, feeds), strict=True))
    last = model[-1] if name == "pipeline" else model
    seen = model[:-1].transform(fresh) if name == "pipeline" else fresh
    np.testing.assert_allclose(found["contributions"], last.eval_terms(seen), rtol=1e-5, atol=1e-6)
    if hasattr(last, "classes_"):
        assert (found["label"] == model.predict(fresh)).all()
        np.testing.assert_allclose(found["probabilities"], model.predict_proba(fresh), rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_allclose(found["prediction"][:, 0], model.predict(fresh), rtol=1e-5, atol=1e-6)
    described = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(described["onnxtool.contributions.terms"]) == last.term_names_
    intercept = json.loads(described["onnxtool.contributions.intercept"])
    assert intercept == np.atleast_1d(last.intercept_).tolist()


def test_a_saved_machine_opens_without_trust(tmp_path: Path) -> None:
    model = ExplainableBoostingRegressor(interactions=1, **QUICK).fit(TRAIN, TARGET)
    joblib.dump(model, tmp_path / "m.joblib")
    assert onnxtool.convert(tmp_path / "m.joblib", tmp_path / "m.onnx", data=FRESH)
