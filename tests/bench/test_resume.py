"""A sweep that is interrupted goes on where it was, on the same machine and with the same rows alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnxtool
from onnxtool.bench.resume import check_same_place, earlier_bench, kept_cells
from onnxtool.cli import cli
from onnxtool.errors import DataError, UsageError
from onnxtool.reports import json
from onnxtool.reports.model import Report


@pytest.fixture
def saved(dense_model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "saved.json"
    json.write(onnxtool.bench(dense_model, batches=(1, 2), duration=0.05), path)
    return path


def times(report: Report) -> dict[tuple[int, str], float]:
    return {
        (cell.batch, cell.provider): cell.latency.mean_s
        for subject in report.subjects
        for cell in subject.bench.cells
        if cell.latency
    }


def test_what_is_measured_is_kept_to_the_digit(dense_model, saved):
    before = json.read(saved)
    kept, failed = before.subjects[0].bench.cells
    before.subjects[0].bench.cells[1] = failed.model_copy(update={"status": "failed", "latency": None})
    json.write(before, saved)
    seen = []
    after = onnxtool.bench(dense_model, batches=(2, 1), duration=0.05, resume=saved, on_report=seen.append)
    assert after and len(seen) == 1
    assert times(after)[1, kept.provider] == kept.latency.mean_s
    assert [cell.batch for cell in after.subjects[0].bench.cells] == [2, 1]
    assert all(cell.status == "measured" for cell in after.subjects[0].bench.cells)


def test_another_model_is_measured_anew(dense_model, saved, make_dense):
    old = times(json.read(saved))
    model = make_dense()
    model.doc_string = "changed"
    onnx.save(model, dense_model)
    new = times(onnxtool.bench(dense_model, batches=(1, 2), duration=0.05, resume=saved))
    assert new.keys() == old.keys() and not set(new.values()) & set(old.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"duration": 0.06}, "measured for 0.05 s, not for 0.06 s"),
        ({"seed": 1}, "other rows"),
        ({"data": {"x": np.ones((2, 4), np.float32)}}, "other rows"),
    ],
)
def test_other_options_are_no_resumption(dense_model, saved, options, message):
    with pytest.raises(UsageError, match=message):
        onnxtool.bench(dense_model, **{"batches": (1, 2), "duration": 0.05, "resume": saved, **options})


def test_another_machine_or_library_is_named(saved):
    report = json.read(saved)
    here = report.environment
    check_same_place("saved.json", report, here)
    elsewhere = here.model_copy(
        update={"os": "Another 1.0", "libraries": {**here.libraries, "numpy": "0.1", "onnxruntime": "0.2"}}
    )
    with pytest.raises(
        UsageError, match=r"saved.json cannot be resumed here: .*system was .*onnxruntime.*numpy was"
    ):
        check_same_place("saved.json", report, elsewhere)


def test_the_source_is_known_by_its_hash(dense_model, misbehaving, saved):
    source = misbehaving("fine")
    report = onnxtool.bench(dense_model, duration=0.05, source=source)
    (subject,) = report.subjects
    assert len(earlier_bench(report, subject.model, subject.source).cells) == 2
    changed = subject.source.model_copy(update={"sha256": "0" * 64})
    for other in (changed, None, subject.source.model_copy(update={"sha256": None})):
        assert [cell.provider for cell in earlier_bench(report, subject.model, other).cells] == [
            "CPUExecutionProvider"
        ]
    assert kept_cells(subject.bench, None) == {}


def test_what_is_no_report_cannot_be_resumed(dense_model, tmp_path):
    with pytest.raises(DataError):
        onnxtool.bench(dense_model, resume=tmp_path / "none.json")
    with pytest.raises(UsageError, match="sweep"):
        onnxtool.bench(dense_model, against=dense_model, resume=tmp_path / "none.json")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_a_report_to_go_on_with(dense_model, tmp_path, number):
    path = tmp_path / "sweep.json"
    command = [
        sys.executable, "-m", "onnxtool", "bench", str(dense_model), "--batch", "1,2,3", "--duration", "0.5",
        "--json", str(path),
    ]  # fmt: skip
    environment = {**os.environ, "NO_COLOR": "1"}
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(number)
    _, errors = run.communicate(timeout=30)
    if number == signal.SIGINT:
        assert run.returncode == 2
        assert errors.strip().endswith(f"onnxtool: interrupted. Go on with: --resume {path}")

    part = json.read(path)
    done = len(part.subjects[0].bench.cells)
    assert 1 <= done < 3 and part.subjects[0].bench.unfinished == 3 - done
    assert not part
    shown = CliRunner().invoke(cli, ["report", str(path), "--format", "text"]).output
    assert f"{3 - done} of 3 cells are not measured yet" in " ".join(shown.split())

    result = CliRunner().invoke(cli, [*command[3:], "--resume", str(path)], standalone_mode=False)
    assert result.return_value == 0, result.output
    whole = json.read(path)
    assert whole and whole.subjects[0].bench.unfinished == 0
    assert len(times(whole)) == 3
    for key, mean_s in times(part).items():
        assert times(whole)[key] == pytest.approx(mean_s, rel=1e-12)
