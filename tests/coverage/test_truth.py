"""The record of `benchmarks.truth`, and one of its cases."""

import json

from benchmarks import truth


def test_the_page_is_what_the_record_says():
    record = json.loads((truth.RECORDS / "truth.json").read_text())
    assert truth.page(record) == (truth.RECORDS / "README.md").read_text()
    assert [result["case"] for result in record["cases"]] == [case.name for case in truth.cases()]


def test_no_verdict_passes_that_the_estimator_denies():
    for result in json.loads((truth.RECORDS / "truth.json").read_text())["cases"]:
        assert result["passed"] == (result["numbers"] + result["flips"] == 0), result


def test_a_case_is_as_it_was_recorded():
    recorded = {r["case"]: r for r in json.loads((truth.RECORDS / "truth.json").read_text())["cases"]}
    case = next(case for case in truth.cases() if case.name == "wine/gradient boosting")
    assert truth.examine(case) == recorded[case.name]
