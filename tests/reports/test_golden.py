"""A saved report stays readable, and its renderings change only on purpose.

After a change on purpose, write the renderings anew and look at the difference before committing it:

    UPDATE_GOLDEN=1 pytest tests/reports/test_golden.py && git diff tests/reports/golden

The saved report itself is never written anew: it stands for the reports that users have kept. A new schema
version gets a file of its own, beside it.
"""

import json
import os
from pathlib import Path

import pytest

from onnxtool.reports import json as report_json
from onnxtool.reports.render import render

GOLDEN = Path(__file__).parent / "golden"


def test_the_saved_report_reads_and_loses_nothing():
    path = GOLDEN / "report-1.0.json"
    written = report_json.render(report_json.read(path))
    assert _holds(json.loads(written), json.loads(path.read_text(encoding="utf-8")))


def _holds(new: object, old: object) -> bool:
    """Whether all of the old is in the new; a newer onnxtool may have optional parts to add."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(name in new and _holds(new[name], old[name]) for name in old)
    if isinstance(old, list):
        return isinstance(new, list) and len(new) == len(old) and all(map(_holds, new, old))
    return new == old


@pytest.mark.parametrize("name", ["csv", "junit", "md", "text"])
def test_renderings(name: str):
    text = render(report_json.read(GOLDEN / "report-1.0.json"), name)
    path = GOLDEN / f"report.{name}"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
