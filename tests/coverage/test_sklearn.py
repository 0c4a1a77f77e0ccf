"""The table of scikit-learn's estimators: a sample of it, and that it is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.coverage import sklearn as coverage
from benchmarks.coverage import table
from benchmarks.coverage.sklearn_cases import make

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
    result = coverage.examine(f"{name}/{kind}")
    assert (result["outcome"], result["reason"]) == ("agrees", "")


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
    """When this fails, skl2onnx has fixed its converter, and ours can go."""
    assert coverage.upstream(make(name, kind)) != "agrees"


def test_nmf_says_why_it_has_no_conversion() -> None:
    result = coverage.examine("NMF/float32")
    assert result["outcome"] == "refused"
    assert "depends on the other rows" in result["reason"]


def test_the_table_knows_every_estimator() -> None:
    versions = coverage.versions()
    results = table.from_json(RECORDS / "sklearn.json", versions)
    assert set(results) == set(coverage.case_names())
    assert (RECORDS / "sklearn.md").read_text(encoding="utf-8") == coverage.to_markdown(results, versions)
    agreed, counted = coverage.share(results.values())
    assert agreed >= 0.95 * counted


def test_a_case_that_is_late_costs_a_row(tmp_path: Path) -> None:
    names, versions = ["Ridge/float32", "Ridge/frame"], coverage.versions()
    results = table.fill(tmp_path / "r.json", versions, coverage.examine, names, workers=1, limit_s=0.001)
    assert [result["outcome"] for result in results.values()] == ["fails", "fails"]
    assert "| Ridge | fails |  | fails |" in coverage.to_markdown(results, versions)
