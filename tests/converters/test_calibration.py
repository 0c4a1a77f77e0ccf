"""Calibrated classifiers say what scikit-learn says, by bare ONNX Runtime."""

import warnings

import numpy as np
import onnxruntime
import pytest
from lightgbm import LGBMClassifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from xgboost import XGBClassifier

import onnxtool
from onnxtool.errors import ConversionError

RNG = np.random.default_rng(0)
X = np.round(RNG.normal(50, 20, (300, 4)), 2)
TWO = ((X[:, 0] > 50) ^ (X[:, 1] > 60)).astype(int)
THREE = (X[:, 0] // 34).astype(int).clip(0, 2)

INNER = {
    "linear": lambda: LogisticRegression(max_iter=5000),
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "scores alone": lambda: make_pipeline(StandardScaler(), LinearSVC()),
    "support vectors": lambda: make_pipeline(StandardScaler(), SVC()),
    "forest": lambda: RandomForestClassifier(8, random_state=0),
    "XGBoost": lambda: make_pipeline(StandardScaler(), XGBClassifier(n_estimators=4)),
}
BINARY = {
    "histogram gradient boosting": lambda: HistGradientBoostingClassifier(max_iter=5),
    "LightGBM": lambda: LGBMClassifier(n_estimators=5, verbose=-1),
}


def check(model, rows, path):
    report = onnxtool.convert(model, path, data=rows, sandbox=None)
    assert report, report.subjects[0].checks[0].message
    session = onnxruntime.InferenceSession(path)
    (entry,) = session.get_inputs()
    dtype = {"tensor(float)": np.float32, "tensor(double)": np.float64}[entry.type]
    label, probabilities = session.run(None, {entry.name: rows.astype(dtype)})
    np.testing.assert_allclose(probabilities, model.predict_proba(rows), atol=1e-5)
    np.testing.assert_array_equal(label, model.predict(rows))


SIGMOIDS = [(name, "sigmoid", target) for name in INNER for target in ("two", "three")]
TEMPERATURES = [(name, "temperature", target) for name in ("linear", "forest") for target in ("two", "three")]


@pytest.mark.parametrize(("name", "method", "classes"), [*SIGMOIDS, *TEMPERATURES])
def test_a_calibrated_classifier(name, method, classes, tmp_path):
    target = {"two": TWO, "three": THREE}[classes]
    check(CalibratedClassifierCV(INNER[name](), cv=2, method=method).fit(X, target), X, tmp_path / "m.onnx")


@pytest.mark.parametrize("name", BINARY)
def test_a_decision_function_that_is_a_logit(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of LightGBM's names of columns
        check(CalibratedClassifierCV(BINARY[name](), cv=2).fit(X, TWO), X, tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["linear", "forest"])
def test_isotonic_regression(name, tmp_path):
    check(CalibratedClassifierCV(INNER[name](), cv=2, method="isotonic").fit(X, TWO), X, tmp_path / "m.onnx")


def test_a_frozen_classifier(tmp_path):
    check(CalibratedClassifierCV(FrozenEstimator(GaussianNB().fit(X, TWO))).fit(X, TWO), X, tmp_path / "m.onnx")


@pytest.mark.parametrize("kind", [AdaBoostClassifier, GradientBoostingClassifier, HistGradientBoostingClassifier])
@pytest.mark.parametrize("target", [TWO, THREE], ids=["two", "three"])
def test_the_decision_function_of_boosting(kind, target, tmp_path):
    size = "max_iter" if kind is HistGradientBoostingClassifier else "n_estimators"
    check(CalibratedClassifierCV(kind(**{size: 3}), cv=2).fit(X, target), X, tmp_path / "m.onnx")


def test_a_decision_function_that_is_not_known_is_refused(tmp_path):
    """And the remedy of the message converts."""
    unknown = CalibratedClassifierCV(QuadraticDiscriminantAnalysis(), cv=2).fit(X, THREE)
    with pytest.raises(ConversionError, match=r"QuadraticDiscriminantAnalysis.*as a random forest"):
        onnxtool.convert(unknown, tmp_path / "m.onnx", data=X, sandbox=None)
    check(CalibratedClassifierCV(RandomForestClassifier(3), cv=2).fit(X, THREE), X, tmp_path / "m.onnx")
