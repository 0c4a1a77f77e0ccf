"""Comparisons with another model and with a saved report, on real sessions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import onnxtool
from onnxtool.bench.baseline import compare_with_baseline, machine_differences
from onnxtool.cli import cli
from onnxtool.errors import ModelError, UsageError
from onnxtool.reports import json
from onnxtool.reports.render import render


def layers(path: Path, number: int, width: int = 64) -> Path:
    weights = np.eye(width, dtype=np.float32)
    names = ["x", *(f"h{index}" for index in range(number - 1)), "y"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(number)],
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])],
        [numpy_helper.from_array(weights, f"w{i}") for i in range(number)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_slower_model_fails_and_the_mirrored_comparison_passes(tmp_path: Path) -> None:
    fast, slow = layers(tmp_path / "fast.onnx", 10), layers(tmp_path / "slow.onnx", 30)
    report = onnxtool.bench(slow, against=fast, budget=20, threads=(1,))
    (found,) = report.subjects[0].comparisons
    assert found.outcome == "fail" and not report
    assert found.ratio is not None and found.ratio > 1.5
    assert found.quads >= 40 and found.looks and found.median_s and found.against_median_s
    for format_name in ("html", "md", "text", "junit"):
        assert f"{found.ratio:.3f}" in render(report, format_name).replace("\\", "")
    assert 'class="band"' in render(report, "html")
    assert onnxtool.bench(fast, against=slow, budget=20, threads=(1,))


def test_too_short_a_budget_is_inconclusive_and_fails_only_when_strict(tmp_path: Path) -> None:
    model = str(layers(tmp_path / "model.onnx", 2))
    arguments = ["bench", model, "--against", model, "--budget", "0.001"]
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert result.return_value == 0 and "0 of 1 comparison decided" in result.output
    assert CliRunner().invoke(cli, [*arguments, "--strict"], standalone_mode=False).return_value == 1


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    model = layers(tmp_path / "model.onnx", 2)
    with pytest.raises(UsageError, match="smallest effect"):
        onnxtool.bench(model, against=model, effect=0)
    with pytest.raises(UsageError, match="alone"):
        onnxtool.bench(model, against=model, baseline="saved.json")
    other = onnx.load(model)
    other.graph.input[0].name = other.graph.node[0].input[0] = "z"
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match="inputs differ"):
        onnxtool.bench(model, against=tmp_path / "other.onnx")


def test_a_baseline_judges_on_its_own_machine_only(tmp_path: Path) -> None:
    model = layers(tmp_path / "model.onnx", 10)
    saved = onnxtool.bench(model, duration=0.3, threads=(1,))
    json.write(saved, tmp_path / "saved.json")
    again = onnxtool.bench(model, baseline=tmp_path / "saved.json", duration=0.3, threads=(1,), effect=20)
    assert [found.outcome for found in again.subjects[0].comparisons] == ["pass"]

    bench, here = saved.subjects[0].bench, saved.environment
    assert bench is not None
    slower = bench.model_copy(deep=True)
    for entry in slower.cells[0].latency.percentiles:  # type: ignore[union-attr]
        for end in ("value_s", "low_s", "high_s"):
            setattr(entry, end, 3 * (getattr(entry, end) or 1))
    (found,) = compare_with_baseline("model.onnx", slower, saved, here, against="saved.json", effect=0.05)
    assert found.outcome == "fail" and found.ratio == pytest.approx(3)

    elsewhere = here.model_copy(update={"memory_bytes": 2 * here.memory_bytes, "os": "Another 1.0"})
    (found,) = compare_with_baseline("model.onnx", slower, saved, elsewhere, against="saved.json", effect=0.05)
    assert found.outcome == "inconclusive" and found.ratio is None
    assert "system was" in str(found.reason) and "memory was" in str(found.reason)
    assert machine_differences(here, here) == []
