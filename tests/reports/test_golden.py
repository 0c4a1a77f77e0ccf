"""Saved reports stay readable, and the renderings change only on purpose.

After a change on purpose, write the renderings anew and look at the difference before committing it:

    UPDATE_GOLDEN=1 pytest tests/reports/test_golden.py && git diff tests/reports/golden

The saved reports are never written anew: they stand for the reports that users have kept. A new schema version
gets a file of its own. `report-1.0-search.json` has what `report-1.0.json` lacks: a search, an explanation, a
lint, and a model in lower precision.
"""

import json
import os
from pathlib import Path

import pytest

from onnxtool.reports import json as report_json
from onnxtool.reports.model import SCHEMA_VERSION, Report
from onnxtool.reports.render import render

GOLDEN = Path(__file__).parent / "golden"
SAVED = GOLDEN / "report-2.0.json"


def test_the_saved_report_reads_and_loses_nothing():
    written = report_json.render(report_json.read(SAVED))
    old = json.loads(SAVED.read_text(encoding="utf-8"))
    assert _contains(json.loads(written), {**old, "schema_version": SCHEMA_VERSION})


def test_reports_of_schema_1_read_as_those_of_schema_2():
    first, second = (report_json.read(GOLDEN / name) for name in ("report-1.0.json", "report-1.0-search.json"))
    joined = first.model_copy(update={"subjects": [*first.subjects, *second.subjects]})
    assert json.loads(report_json.render(joined)) == json.loads(report_json.render(report_json.read(SAVED)))


def test_the_fields_of_schema_1_are_those_that_were_renamed():
    report = report_json.read(GOLDEN / "report-1.0-search.json")
    (subject,) = report.subjects
    explanation, conversion = subject.parity.explanation, subject.conversion
    assert [(kind.rows, kind.mismatches) for kind in subject.search.categories] == [(800, 3), (100, 0)]
    assert (explanation.first_difference, explanation.first_failure) == (0, 1)
    assert explanation.error_components[0].conversion == 0.5
    (output,) = subject.parity.outputs
    assert (output.mismatched_rows, output.mismatched_elements, output.mismatched_nonfinite) == (7, 9, 1)
    assert output.tolerance.reason == "derived: 3 roundings"
    assert [candidate.mismatched_rows for candidate in conversion.candidates] == [0, 7]
    assert conversion.lowering.sensitivity == {"conv": 0.31, "gemm": 0.004}
    assert subject.lint.rules[0].requirement == "Inputs have a batch dimension."
    assert subject.lint.findings[0].location == "input 'x'"
    assert report.schema_version == SCHEMA_VERSION


def test_an_outcome_of_schema_1_has_its_new_name(tmp_path):
    content = json.loads((GOLDEN / "report-1.0.json").read_text(encoding="utf-8"))
    comparison = {"against": "a", "method": "paired", "provider": "p", "batch": 1, "threads": None, "effect": 0.05}
    content["subjects"][0]["comparisons"] = [{**comparison, "outcome": "inconclusive"}]
    (tmp_path / "report.json").write_text(json.dumps(content), encoding="utf-8")
    assert report_json.read(tmp_path / "report.json").subjects[0].comparisons[0].outcome == "undecided"


def test_a_percentile_of_schema_1_keeps_its_reason():
    refused = [entry for cell in _cells(GOLDEN / "report-1.0.json") for entry in cell.latency.percentiles]
    assert any(entry.value_s is None and entry.reason for entry in refused)


def _cells(path: Path):
    report: Report = report_json.read(path)
    cells = [cell for subject in report.subjects if subject.bench for cell in subject.bench.cells]
    return [cell for cell in cells if cell.latency]


def _contains(new: object, old: object) -> bool:
    """Whether all of the old is in the new; a newer onnxtool may have optional fields to add."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(name in new and _contains(new[name], old[name]) for name in old)
    if isinstance(old, list):
        return isinstance(new, list) and len(new) == len(old) and all(map(_contains, new, old))
    return new == old


@pytest.mark.parametrize("name", ["csv", "junit", "md", "text"])
def test_renderings(name: str):
    text = render(report_json.read(SAVED), name)
    path = GOLDEN / f"report.{name}"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
