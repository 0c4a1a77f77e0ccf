"""The table of Hugging Face's architectures: what is in the record, and the command where transformers is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.coverage import table
from benchmarks.coverage import transformers as transformers_table
from benchmarks.coverage.__main__ import main

RECORD = Path(__file__).resolve().parents[2] / "reports" / "coverage" / "transformers.json"
CONTENT = json.loads(RECORD.read_text(encoding="utf-8"))


def test_the_record_is_of_what_is_installed_and_holds_every_case() -> None:
    assert CONTENT["versions"].items() >= table.installed("torch", "onnxscript", "onnx", "onnxruntime").items()
    assert sorted(CONTENT["results"]) == transformers_table.case_names()


def test_the_page_is_made_of_the_record() -> None:
    page = RECORD.with_suffix(".md").read_text(encoding="utf-8")
    assert page == transformers_table.to_markdown(CONTENT["results"], CONTENT["versions"])


def test_nearly_all_agree_and_the_others_have_a_reason() -> None:
    others = [result for result in CONTENT["results"].values() if result["outcome"] != "agrees"]
    assert len(others) <= 0.05 * len(CONTENT["results"])
    assert all(result["outcome"] == "refused" and result["reason"] for result in others)


def test_a_run_needs_transformers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # as Python does itself for what must not be imported
    assert main(["transformers", "--only", "BertModel"]) == 2
    assert "pip install transformers" in capsys.readouterr().err
