"""The table of scikit-learn's estimators: a sample of it, and that it is whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skl2onnx
from sklearn.kernel_ridge import KernelRidge
from sklearn.preprocessing import PolynomialFeatures

from benchmarks.coverage import sklearn as coverage
from onnxtool.converters.framework import ConvertOptions
from onnxtool.converters.sklearn import FRAMEWORK
from onnxtool.models.source import LoadOptions
from onnxtool.opening import open_source

RECORDS = Path(__file__).resolve().parents[2] / "reports" / "coverage"

SAMPLE = [
    ("BisectingKMeans", "float32"),
    ("CCA", "float64"),
    ("ClassifierChain", "float32"),
    ("DictionaryLearning", "float64"),
    ("DummyClassifier", "float32"),
    ("FixedThresholdClassifier", "float64"),
    ("GaussianMixture", "float64"),
    ("GaussianProcessClassifier", "float32"),
    ("GridSearchCV", "frame"),
    ("Isomap", "float64"),
    ("IsotonicRegression", "float32"),
    ("KBinsDiscretizer", "float32"),
    ("KNNImputer", "float64"),
    ("KernelPCA", "float32"),
    ("LabelSpreading", "float32"),
    ("LatentDirichletAllocation", "float64"),
    ("LocallyLinearEmbedding", "float32"),
    ("NearestCentroid", "float32"),
    ("OneClassSVM", "float64"),
    ("PolynomialCountSketch", "float32"),
    ("QuantileTransformer", "frame"),
    ("RadiusNeighborsRegressor", "float64"),
    ("RandomTreesEmbedding", "float32"),
    ("SplineTransformer", "float32"),
    ("TargetEncoder", "frame"),
    ("TransformedTargetRegressor", "float32"),
]


@pytest.mark.parametrize(("name", "kind"), SAMPLE, ids=[name for name, _ in SAMPLE])
def test_an_estimator_agrees_on_rows_that_it_has_not_seen(name: str, kind: str) -> None:
    result = coverage.examine(name, kind)
    assert (result.outcome, result.reason) == ("agrees", "")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("GaussianProcessClassifier", "float32"),
        ("KBinsDiscretizer", "float32"),
        ("KNNImputer", "float64"),
        ("OneClassSVM", "float64"),
        ("PolynomialFeatures", "float64"),
        ("PowerTransformer", "float64"),
        ("RadiusNeighborsRegressor", "float32"),
        ("RidgeClassifier", "float64"),
        ("SimpleImputer", "float64"),
        ("SVR", "float64"),
        ("TargetEncoder", "float32"),
    ],
)
def test_what_ours_replaces_still_fails_upstream(name: str, kind: str) -> None:
    """When this fails, skl2onnx has mended its converter, and ours can go."""
    assert coverage.examine(name, kind).upstream != "agrees"


def test_nmf_says_why_it_has_no_conversion() -> None:
    result = coverage.examine("NMF", "float32")
    assert result.outcome == "refused"
    assert "depends on the other rows" in result.reason


def test_skl2onnx_is_as_it_was_after_a_conversion() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    source = open_source(KernelRidge().fit(rows, rows[:, 0]), LoadOptions())
    FRAMEWORK.convert(source, {}, ConvertOptions())
    assert KernelRidge not in skl2onnx.supported_converters()
    with pytest.raises(skl2onnx.common.exceptions.MissingShapeCalculator):
        skl2onnx.to_onnx(KernelRidge().fit(rows, rows[:, 0]), rows)


@pytest.mark.parametrize(
    "features",
    [
        PolynomialFeatures(3),
        PolynomialFeatures(3, interaction_only=True, include_bias=False),
        PolynomialFeatures((2, 3), include_bias=False),
        PolynomialFeatures(0),
    ],
    ids=str,
)
def test_products_come_in_their_order(features: PolynomialFeatures, tmp_path: Path) -> None:
    from onnxtool.api import convert

    rows = np.random.default_rng(1).normal(size=(50, 4))
    report = convert(features.fit(rows), tmp_path / "m.onnx", data=rows, inputs=["X:float64[batch,4]"])
    assert report.passed


def test_the_table_knows_every_estimator() -> None:
    results, versions = coverage.from_json((RECORDS / "sklearn.json").read_text(encoding="utf-8"))
    assert {result.name for result in results} == set(coverage.names())
    assert versions == coverage.versions()
    assert (RECORDS / "sklearn.md").read_text(encoding="utf-8") == coverage.to_markdown(results, versions)
    agreed, counted = coverage.share(results)
    assert agreed >= 0.95 * counted


def test_a_case_that_is_late_costs_a_row() -> None:
    results = coverage.run(["Ridge"], workers=1, limit_s=0.001)
    assert {result.outcome for result in results} == {"fails"}
