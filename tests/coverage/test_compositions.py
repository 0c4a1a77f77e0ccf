"""Estimators around others: a sample of the table, its record, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.coverage import compositions

RECORD = Path(__file__).resolve().parents[2] / "reports" / "coverage" / "compositions.json"

SAMPLE = [
    "CalibratedClassifierCV, sigmoid, three classes/columns, histogram boosting/frame",
    "CalibratedClassifierCV, isotonic, three classes/LightGBM/matrix",
    "CalibratedClassifierCV, temperature, three classes/columns, LightGBM/frame",
    "StackingClassifier/columns, linear/frame",
    "StackingClassifier, words/pipeline/matrix",
    "StackingRegressor/columns, XGBoost/frame",
    "TunedThresholdClassifierCV/columns, forest/frame",
    "OneVsRestClassifier/columns, linear/frame",
    "OneVsRestClassifier, two/XGBoost/frame",
    "OneVsOneClassifier/pipeline/matrix",
    "OutputCodeClassifier/columns, LightGBM/frame",
    "MultiOutputClassifier/columns, linear/frame",
    "MultiOutputRegressor/columns, histogram boosting/frame",
    "TransformedTargetRegressor, log1p/columns, linear/frame",
]


@pytest.mark.parametrize("case", SAMPLE)
def test_a_composition_agrees(case: str) -> None:
    assert compositions.examine(case) == {"outcome": "agrees", "reason": ""}


def test_the_record_is_whole_and_at_least_98_in_100_agree() -> None:
    content = json.loads(RECORD.read_text(encoding="utf-8"))
    assert set(content["results"]) == set(compositions.case_names())
    agreed, counted = compositions.share(content["results"].values())
    assert agreed >= 0.98 * counted > 300
    page = RECORD.with_suffix(".md").read_text(encoding="utf-8")
    assert page == compositions.to_markdown(content["results"], content["versions"])
    assert not any(result["outcome"] == "untrue" for result in content["results"].values())
