"""What people do with a report in Python."""

import json
import pickle

import pytest

from onnxtool.errors import OutputError, UsageError
from onnxtool.reports import findings
from onnxtool.reports.model import Report
from onnxtool.reports.render import ENDINGS, render


def test_a_report_is_one_line_without_control_characters(sample: Report):
    for record in (sample, *sample.subjects, sample.subjects[0].parity, sample.subjects[0].bench.cells[0]):
        assert "\n" not in repr(record)
        assert "\x1b" not in repr(record)
        assert len(repr(record)) < 1000
    assert repr(sample[0]) == "<credit.onnx: ✓ passed, 0 of 1,000 rows off>"
    assert str(sample) + "\n" == render(sample, "text")


def test_models_cells_and_outputs_are_found_by_name(sample: Report):
    subject = sample["credit.onnx"]
    assert subject is sample[0] is sample.subjects[0]
    assert subject.parity["label"] is subject.parity.outputs[0]
    cell = subject.cell(batch=8, provider="cuda", threads=1)
    assert (cell.provider, cell.batch, cell.threads) == ("CUDAExecutionProvider", 8, 1)
    assert cell is subject.cell(batch=8, provider="CUDAExecutionProvider", threads=1, concurrency=1)
    latency = subject.latency(batch=1, provider="source")
    assert (latency.p50, latency.p90, latency.p99) == tuple(entry.value_s for entry in latency.percentiles[:3])
    assert latency.percentile(0.123) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda report: report["other.onnx"], r"no model 'other.onnx'. It has: 'credit.onnx', "),
        (lambda report: report[0].parity["scores"], r"no output 'scores'. It has: 'label', 'probabilities'"),
        (
            lambda report: report[0].cell(batch=8),
            r"4 fit; say more.*CPU, batch 8, 1 thread; CPU, batch 8, 2 threads",
        ),
        (lambda report: report[0].cell(provider="tensorrt"), r"None fits\. Measured: source, batch 1; "),
        (lambda report: report[0].cell(size=3), r"no field 'size'"),
        (lambda report: report.to_frame("rows"), r"no table 'rows'. Tables: parity, cells, checks"),
        (lambda report: report.save("report.pdf"), r"report\.pdf names no format.*\.html"),
    ],
)
def test_what_is_not_there_is_a_message(sample: Report, wrong, message):
    with pytest.raises(UsageError, match=message):
        wrong(sample)


def test_frames_hold_the_numbers_unrounded(sample: Report):
    parity, cells, checks = (sample.to_frame(table) for table in ("parity", "cells", "checks"))
    assert len(parity) == sum(len(subject.parity.outputs) for subject in sample.subjects)
    assert parity.max_absolute[1] == sample[0].parity["probabilities"].max_absolute
    row = cells[(cells.provider == "CUDAExecutionProvider") & (cells.batch == 8) & (cells.threads == 1)].iloc[0]
    assert row.p50_s == sample[0].latency(batch=8, provider="cuda", threads=1).p50
    assert list(checks.passed) == [check.passed for subject in sample.subjects for check in subject.checks]
    empty = Report.model_validate(sample.model_dump() | {"subjects": []}).to_frame("cells")
    assert "p50_s" in empty.columns


def test_every_ending_saves_its_format(sample: Report, tmp_path):
    for ending, name in ENDINGS.items():
        path = sample.save(tmp_path / f"report{ending.upper()}")
        assert path.read_text(encoding="utf-8") == render(sample, name)
    assert sample.save(tmp_path / "notes", format="md").read_text(encoding="utf-8") == render(sample, "md")
    with pytest.raises(OutputError, match="does not exist"):
        sample.save(tmp_path / "none" / "report.md")


def test_a_report_stays_a_record(sample: Report):
    assert pickle.loads(pickle.dumps(sample)).model_dump_json() == sample.model_dump_json()
    assert json.loads(sample.model_dump_json())["command"] == "demo"
    assert "model_dump" not in dir(sample)
    assert "latency" in dir(sample[0])


def test_the_words_of_parity_are_those_of_the_renderers(sample: Report):
    parity = sample.subjects[1].parity
    worst = findings.worst_output(parity)
    assert parity.mismatched_rows == worst.mismatched_rows == 14
    assert parity.max_absolute == worst.max_absolute
