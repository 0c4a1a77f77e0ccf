"""Boosted trees of several classes: an operator a class says what one for all says."""

from collections import Counter

import lightgbm
import numpy as np
import onnx
import onnxruntime
import pytest
import xgboost
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from onnxtool.converters import boosting
from onnxtool.converters.framework import ConvertOptions, frameworks
from onnxtool.models.signature import TensorSpec
from onnxtool.models.source import LoadOptions
from onnxtool.opening import open_source

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(400, 5)).astype(np.float32)
ROWS[RNG.random(ROWS.shape) < 0.05] = np.nan
CLASSES = np.digitize(np.nan_to_num(ROWS[:, 0]) + np.nan_to_num(ROWS[:, 1]), (-0.7, 0.1, 0.9))


def converted(model, dtype="float32"):
    source = open_source(model, LoadOptions(inputs=(TensorSpec.parse(f"X:{dtype}[batch,5]"),)))
    return frameworks()[source.framework].convert(source, {}, ConvertOptions()).model


def run(model, rows):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: rows})


def at_thresholds(model):
    """Rows at every threshold, and one step to either side of it."""
    rows = []
    for node in model.graph.node:
        fields = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        numbers = fields.get("nodes_values", fields.get("nodes_values_as_tensor", []))
        if isinstance(numbers, onnx.TensorProto):
            numbers = onnx.numpy_helper.to_array(numbers)
        for mode, feature, value in zip(
            fields.get("nodes_modes", []), fields.get("nodes_featureids", []), numbers, strict=True
        ):
            if mode != b"LEAF":
                for near in (
                    value,
                    np.nextafter(np.float32(value), -np.inf),
                    np.nextafter(np.float32(value), np.inf),
                ):
                    row = ROWS[len(rows) % len(ROWS)].astype(np.float64)
                    row[feature] = near
                    rows.append(row)
    return np.array(rows)


MODELS = {
    "xgboost": lambda: xgboost.XGBClassifier(n_estimators=16).fit(ROWS, CLASSES),
    "xgboost, random forest": lambda: xgboost.XGBRFClassifier(n_estimators=16).fit(ROWS, CLASSES),
    "lightgbm": lambda: lightgbm.LGBMClassifier(n_estimators=16, verbose=-1).fit(ROWS, CLASSES),
    "lightgbm, one against all": lambda: lightgbm.LGBMClassifier(
        n_estimators=16, verbose=-1, objective="multiclassova"
    ).fit(ROWS, CLASSES),
    "lightgbm, labels of text": lambda: lightgbm.LGBMClassifier(n_estimators=16, verbose=-1).fit(
        ROWS, np.array(["d", "a", "c", "b"])[CLASSES]
    ),
    "lightgbm, labels with gaps": lambda: lightgbm.LGBMClassifier(n_estimators=16, verbose=-1).fit(
        ROWS, np.array([7, 3, 90, 4])[CLASSES]
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_same_labels_and_probabilities_at_every_threshold(name, monkeypatch):
    model = MODELS[name]()
    distance = converted(model)
    monkeypatch.setattr(boosting, "_split_by_class", lambda *arguments: None)
    whole = converted(model)
    kinds = Counter(node.op_type for node in distance.graph.node)
    assert kinds["TreeEnsembleRegressor"] == 4
    assert not kinds["TreeEnsembleClassifier"]
    rows = at_thresholds(whole).astype(np.float32)
    assert len(rows) > 500
    for batch in (rows, rows[:1]):
        (labels, shares), (other_labels, other_shares) = run(distance, batch), run(whole, batch)
        assert labels.dtype == other_labels.dtype
        np.testing.assert_array_equal(labels, other_labels)
        np.testing.assert_allclose(shares, other_shares, atol=1e-6)
        np.testing.assert_array_equal(labels, model.predict(batch))
        np.testing.assert_allclose(shares, model.predict_proba(batch), atol=1e-5)


def test_one_against_all_from_a_file(tmp_path):
    model = MODELS["lightgbm, one against all"]()
    model.booster_.save_model(tmp_path / "model.txt")
    labels, shares = run(converted(str(tmp_path / "model.txt")), ROWS)
    np.testing.assert_array_equal(labels, model.predict(ROWS))
    np.testing.assert_allclose(shares, model.predict_proba(ROWS), atol=1e-5)


def test_double_thresholds_stay_double():
    model = make_pipeline(
        FunctionTransformer(), lightgbm.LGBMClassifier(n_estimators=16, verbose=-1).fit(ROWS, CLASSES)
    ).fit(ROWS.astype(np.float64), CLASSES)
    proto = converted(model, "float64")
    assert sum(node.op_type == "TreeEnsembleRegressor" for node in proto.graph.node) == 4
    rows = at_thresholds(proto)
    labels, shares = run(proto, rows)
    np.testing.assert_array_equal(labels, model.predict(rows))
    np.testing.assert_allclose(shares, model.predict_proba(rows), atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        xgboost.XGBClassifier(n_estimators=20).fit(ROWS, CLASSES > 1),
        xgboost.XGBClassifier(n_estimators=15).fit(ROWS, CLASSES),
        lightgbm.LGBMClassifier(n_estimators=20, verbose=-1).fit(ROWS, CLASSES > 1),
    ],
)
def test_two_classes_and_few_trees_stay_one_operator(model):
    kinds = Counter(node.op_type for node in converted(model).graph.node)
    assert kinds["TreeEnsembleClassifier"] + kinds["TreeEnsembleRegressor"] == 1
