"""Trees take missing values that no step of a model mentions; made-up rows have them, and a wrong branch is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from sklearn.ensemble import AdaBoostClassifier, ExtraTreesRegressor, IsolationForest, RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import onnxtool

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(300, 4))
TARGET = (ROWS[:, 0] + ROWS[:, 1] * ROWS[:, 2] > 0).astype(int)
HOLES = np.where(RNG.random(ROWS.shape) < 0.1, np.nan, ROWS)

MODELS = {
    "forest": lambda: RandomForestClassifier(8, random_state=0),
    "scaled tree": lambda: make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=5)),
    "extra trees": lambda: ExtraTreesRegressor(5, random_state=0),
    "isolation forest": lambda: IsolationForest(n_estimators=8, random_state=0),
}


@pytest.mark.parametrize("rows", [ROWS, HOLES], ids=["fitted without", "fitted with"])
@pytest.mark.parametrize("name", MODELS)
def test_the_other_branch_for_missing_values_is_found(name: str, rows: np.ndarray, tmp_path: Path) -> None:
    model = MODELS[name]().fit(rows, TARGET)
    assert onnxtool.convert(model, tmp_path / "m.onnx")
    wrong = onnx.load(tmp_path / "m.onnx")
    for node in wrong.graph.node:
        for attribute in node.attribute:
            if attribute.name == "nodes_missing_value_tracks_true":
                attribute.ints[:] = [1 - value for value in attribute.ints]
    onnx.save(wrong, tmp_path / "wrong.onnx")
    assert not onnxtool.verify(tmp_path / "wrong.onnx", model)


def test_a_model_that_refuses_missing_values_gets_none(tmp_path: Path) -> None:
    model = AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=3).fit(ROWS, TARGET)
    assert onnxtool.convert(model, tmp_path / "m.onnx")
