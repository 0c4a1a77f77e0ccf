"""What a model takes that no step states as a range: missing values of trees, bins, splines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from sklearn.ensemble import AdaBoostClassifier, ExtraTreesRegressor, IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, SplineTransformer, StandardScaler
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


@pytest.mark.parametrize(
    "step", [KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"), SplineTransformer()]
)
def test_made_up_rows_fall_into_every_bin(step: object, tmp_path: Path) -> None:
    """Rows about 0 would all fall into the first of the bins of incomes."""
    incomes = RNG.lognormal(10, 0.6, (300, 1)).round(2)
    model = make_pipeline(step, LinearRegression()).fit(incomes, np.sin(incomes[:, 0] / 9000))
    assert onnxtool.convert(model, tmp_path / "m.onnx")
    for place in range(len(model[-1].coef_)):
        wrong = onnx.load(tmp_path / "m.onnx")
        _change_weight(wrong, place, len(model[-1].coef_))
        onnx.save(wrong, tmp_path / "wrong.onnx")
        assert not onnxtool.verify(tmp_path / "wrong.onnx", model, sandbox=None), place


def _change_weight(model: onnx.ModelProto, place: int, count: int) -> None:
    """Add a little to a weight of the regression, an attribute in single precision and a matrix in double."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "coefficients":
                attribute.floats[place] += 0.05
                return
    (tensor,) = [one for one in model.graph.initializer if list(one.dims) == [count, 1]]
    weights = numpy_helper.to_array(tensor).copy()
    weights[place] += 0.05
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
