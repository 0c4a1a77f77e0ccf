"""Rows on which versions of a model are tried: which, how many, and with their own labels."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.onnx.source import OnnxSource
from onnxtool.validators.drift import trial
from onnxtool.validators.drift.trial import Trial
from onnxtool.validators.parity.pairs import Pair, Rows


def scaled(factor, batch="batch", width=2):
    """y = x * factor"""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, width))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (batch, width))],
        [numpy_helper.from_array(np.float32(factor), "factor")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.fixture
def tried(tmp_path):
    def make(rows, labels=None, batch="batch"):
        path = tmp_path / "source.onnx"
        onnx.save(scaled(1.0, batch, rows.shape[1]), path)
        model = OnnxModel.read(path)
        auxiliary = {"labels": labels} if labels is not None else {}
        taken = Rows({"x": rows}, "rows", auxiliary=auxiliary)
        return Trial(Pair(OnnxSource(model), model), taken, "labels" if auxiliary else None, None)

    return make


ROWS = np.random.default_rng(0).normal(size=(500, 1)).astype(np.float32)


def test_versions_are_compared_on_a_sample_and_the_last_on_all_rows(tried, monkeypatch):
    monkeypatch.setattr(trial, "SEARCHED", 40)
    rows = ROWS.copy()
    made = tried(rows)
    assert (made.total, made.searched) == (500, 40)
    assert sum(len(batch["x"]) for batch in made.batches()) == 40
    assert sum(len(batch["x"]) for batch in made.batches(10)) == 10
    drawn = np.concatenate([batch["x"] for batch in made.batches()])
    assert set(drawn.ravel()) < set(rows.ravel())
    part, whole = (made.compare(scaled(1.1, width=1), "r", 0, on_all=on_all) for on_all in (False, True))
    for found, x in ((part, drawn), (whole, rows)):
        assert found.error == pytest.approx(_error(x), rel=1e-4)


def _error(x):
    return np.sqrt(np.mean((0.1 * x.astype(float)) ** 2) / x.astype(float).var())


@pytest.mark.parametrize("searched", [40, 2048])
@pytest.mark.parametrize("on_all", [False, True])
def test_labels_stay_with_their_rows(tried, monkeypatch, searched, on_all):
    monkeypatch.setattr(trial, "SEARCHED", searched)
    made = tried(ROWS, ROWS[:, 0].astype(np.float64))
    found = made.compare(scaled(1.0, width=1), "r", 0, on_all=on_all)
    metrics = {metric.name: metric for metric in found.drift.metrics}
    assert metrics["RMSE"].source == 0
    assert found.drift.rows == (500 if on_all or searched > 500 else 40)


def test_a_fixed_batch_is_filled_up_and_the_filling_does_not_count(tried):
    made = tried(ROWS[:10], batch=4)
    assert [batch["x"].shape for batch in made.batches()] == [(4, 1)] * 3
    assert made.compare(scaled(1.1, 4, 1), "r", 0).error == pytest.approx(_error(ROWS[:10]), rel=1e-4)


def test_of_large_rows_there_are_fewer(tried, monkeypatch):
    monkeypatch.setattr(trial, "NUMBERS", 800)
    monkeypatch.setattr(trial, "BUFFERED", 100)
    rows = np.zeros((100, 20), np.float32)
    assert tried(rows).searched == 40
    assert {len(batch["x"]) for batch in tried(rows).batches()} == {5}
    assert tried(np.zeros((100, 400), np.float32)).searched == trial.BATCH


def test_a_lone_output_of_columns_ranks_classes_where_there_are_labels(tried):
    rows = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    found = tried(rows, rows.argmax(axis=1)).compare(scaled(-1.0, width=3), "r", 0)
    assert found.drift.metrics[0].name == "accuracy"
    assert found.drift.metrics[0].source == 1
    assert not found.passed
