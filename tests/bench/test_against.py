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
    assert found.quads >= 11 and found.looks and found.median_s and found.against_median_s
    for format_name in ("html", "md", "text", "junit"):
        assert f"{found.ratio:.3f}" in render(report, format_name).replace("\\", "")
    assert 'class="band"' in render(report, "html")
    assert onnxtool.bench(fast, against=slow, budget=20, threads=(1,))


def test_too_short_a_budget_is_undecided_and_fails_unless_that_is_to_pass(tmp_path: Path) -> None:
    model = str(layers(tmp_path / "model.onnx", 2))
    arguments = ["bench", model, "--against", model, "--budget", "0.001"]
    for choice, status in (("fail", 1), ("pass", 0)):
        result = CliRunner().invoke(cli, [*arguments, "--undecided", choice], standalone_mode=False)
        assert result.return_value == status
        assert result.output.startswith("? UNDECIDED") and "PASSED" not in result.output
        assert "would decide: --budget" in " ".join(result.output.split())


SLOW = {"batches": (1024,), "threads": (1,)}
"""At which a layer of width 1024 takes some 0.03 s."""


def test_a_slow_model_twice_as_slow_is_found_with_few_quads(tmp_path: Path) -> None:
    """A budget that holds fewer quads than a bootstrap needs."""
    fast, slow = layers(tmp_path / "fast.onnx", 2, 1024), layers(tmp_path / "slow.onnx", 4, 1024)
    report = onnxtool.bench(slow, against=fast, budget=90, **SLOW)  # most of it for a busy machine
    (found,) = report.subjects[0].comparisons
    assert found.outcome == "fail" and not report
    assert 11 <= found.quads < 40 and found.low is not None and found.low > 1.3


def test_a_bound_far_below_every_run_fails_and_one_far_above_passes(tmp_path: Path) -> None:
    """A handful of runs, of which loadgen's rule refuses p99: they decide nevertheless."""
    model = layers(tmp_path / "slow.onnx", 2, 1024)
    report = onnxtool.bench(model, latency_bound=1e-3, duration=0.3, **SLOW)
    cell = report.subjects[0].bench.cells[0]  # type: ignore[union-attr]
    (bound,) = cell.bounds
    assert bound.outcome == "above" and bound.above == bound.samples < 662
    assert not report and "The fastest took" in report.subjects[0].checks[-1].message

    report = onnxtool.bench(model, latency_bound={0.99: 10.0, 0.5: 10.0}, duration=0.2, budget=0.4, **SLOW)
    cell = report.subjects[0].bench.cells[0]  # type: ignore[union-attr]
    assert [(bound.q, bound.outcome, bound.looks) for bound in cell.bounds][1][:2] == (0.99, "undecided")
    assert cell.bounds[1].looks == 2 and (cell.bounds[1].needed_s or 0) > 5
    assert cell.latency is not None and cell.latency.samples == cell.bounds[1].samples
    assert not report and "UNDECIDED" in render(report, "text")
    assert onnxtool.bench(model, latency_bound=10.0, duration=0.2, budget=0.4, undecided="pass", **SLOW)


def test_a_bound_that_the_duration_does_not_decide_is_measured_for_longer(tmp_path: Path) -> None:
    model = layers(tmp_path / "model.onnx", 10)
    report = onnxtool.bench(model, latency_bound=10.0, duration=0.001, budget=20, threads=(1,))
    (bound,) = report.subjects[0].bench.cells[0].bounds  # type: ignore[union-attr]
    assert (bound.outcome, bound.above) == ("within", 0) and bound.samples > 528 and bound.looks > 1
    assert report


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    model = layers(tmp_path / "model.onnx", 2)
    with pytest.raises(UsageError, match="smallest effect"):
        onnxtool.bench(model, against=model, effect=0)
    with pytest.raises(UsageError, match="two models only"):
        onnxtool.bench(model, against=model, baseline="saved.json")
    other = onnx.load(model)
    other.graph.input[0].name = other.graph.node[0].input[0] = "z"
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match="inputs differ"):
        onnxtool.bench(model, against=tmp_path / "other.onnx")


def test_a_baseline_decides_on_its_own_machine_only(tmp_path: Path) -> None:
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
    assert found.outcome == "undecided" and found.ratio is None
    assert "system was" in str(found.reason) and "memory was" in str(found.reason)
    assert machine_differences(here, here) == []
