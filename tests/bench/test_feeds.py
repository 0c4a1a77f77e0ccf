"""The batches of a cell: all rows, in turn."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from scipy.stats import friedmanchisquare

import onnxtool
from onnxtool.bench import feeds
from onnxtool.bench.feeds import batch_of, batches_of, stacked, turned, unstacked
from onnxtool.bench.statistics import between
from onnxtool.bench.timing import time_runs
from onnxtool.cli import cli
from onnxtool.errors import UsageError
from onnxtool.models.signature import TensorSpec
from onnxtool.reports.render import render

X = TensorSpec("x", "float32", ("batch", 4))
ROWS = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}


def test_rows_are_repeated_or_cut_to_the_batch():
    specs = [TensorSpec("x", "float32", ("n", 4)), TensorSpec("t", "float32", (2,)), TensorSpec("s", "int64", ())]
    rows = {"x": ROWS["x"], "t": np.array([0.5, 0.6]), "s": np.array(3), "unused": np.ones(9)}
    five = batch_of(rows, specs, 5)
    assert five["x"][:, 0].tolist() == [0, 4, 0, 4, 0]
    assert five["t"].tolist() == [0.5, 0.6]
    assert five["s"] == 3
    assert list(five) == ["x", "t", "s"]
    assert batch_of(rows, specs, 1)["x"].tolist() == [[0, 1, 2, 3]]
    fixed = [TensorSpec("x", "float32", (3, 4))]
    assert batch_of(rows, fixed, 3)["x"][:, 0].tolist() == [0, 4, 0]


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 5))
def test_each_row_is_in_a_batch_and_rows_stay_together(rows: int, batch: int, seed: int) -> None:
    y = TensorSpec("y", "int64", ("batch",))
    tensors = {"x": np.repeat(np.arange(rows, dtype=np.float32)[:, None], 4, axis=1), "y": np.arange(rows)}
    batches = batches_of(tensors, [X, y], batch, seed)
    assert len(batches) == -(-rows // batch)
    assert all(cut["x"].shape == (batch, 4) and cut["x"].flags.c_contiguous for cut in batches)
    together = np.concatenate([cut["y"] for cut in batches])
    assert sorted(set(together.tolist())) == list(range(rows))
    np.testing.assert_array_equal(np.concatenate([cut["x"][:, 0] for cut in batches]), together)
    if len(batches) == 1:
        assert together.tolist() == [place % rows for place in range(batch)]


def test_what_counts_no_rows_is_the_same_in_each_batch() -> None:
    specs = [X, TensorSpec("t", "float32", (2,)), TensorSpec("s", "int64", ())]
    tensors = {"x": np.zeros((10, 4), np.float32), "t": np.array([0.5, 0.6]), "s": np.array(3)}
    for cut in unstacked(stacked(batches_of(tensors, specs, 3, 0))):
        assert (cut["t"].tolist(), cut["s"], cut["s"].shape) == ([0.5, 0.6], 3, ())
    fixed = [TensorSpec("x", "float32", (3, 4))]
    assert [cut["x"].shape for cut in batches_of(tensors, fixed, 1, 0)] == [(3, 4)] * 4


def test_batches_stay_within_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"x": np.zeros((1000, 4), np.float32)}
    monkeypatch.setattr(feeds, "MOST_BYTES", 10 * 16)
    assert len(batches_of(tensors, [X], 1, 0)) == 10
    assert len(batches_of(tensors, [X], 1000, 0)) == 1
    monkeypatch.setattr(feeds, "MOST_BATCHES", 3)
    assert len(batches_of(tensors, [X], 1, 0)) == 3


def test_a_loop_runs_its_batches_in_turn() -> None:
    ran: list[int] = []
    batches = [{"n": np.array(place)} for place in range(4)]
    time_runs(lambda _, batch: ran.append(int(batch["n"])), turned(batches, 6), 1_000_000)
    assert ran[:5] == [2, 3, 0, 1, 2]


def test_the_spread_is_that_of_the_batches_medians() -> None:
    samples = np.tile(np.array([100, 200, 300, 400, 500]), 20)
    samples[7] = 10_000  # an interruption
    found = between(samples, 5)
    assert found is not None and found.batches == 5
    assert (found.low_s, found.high_s) == pytest.approx((120e-9, 480e-9))
    assert between(samples, 1) is None
    assert found.p_value is not None and found.p_value < 1e-6
    few = between(samples[:37], 5)  # seven rounds
    assert few is not None and (few.batches, few.p_value) == (5, None)


@pytest.mark.parametrize("batches", [2, 5, 64])
def test_equal_batches_are_not_said_to_differ(batches: int) -> None:
    """On a quiet machine, and on one whose bursts slow a fifth of the runs down tenfold, for some runs each."""
    rng = np.random.default_rng(batches)
    p_values = []
    for _ in range(200):
        bursts = np.repeat(np.where(rng.random(batches * 6) < 0.2, 10, 1), 2)
        p_values.append(between((1000 * bursts * rng.lognormal(0, 0.1, len(bursts))).astype(np.int64), batches))
    small = sum(found is not None and found.p_value is not None and found.p_value <= 0.001 for found in p_values)
    assert small <= 2
    ranked = rng.lognormal(0, 0.1, (12, 3))
    found = between((1e6 * ranked).astype(np.int64).ravel(), 3)
    assert found is not None
    assert found.p_value == pytest.approx(friedmanchisquare(*ranked.T).pvalue, rel=1e-6)
    assert between(np.full(40, 7), 2).p_value == 1.0  # type: ignore[union-attr]


def steps(path):
    """A model whose work is the number in its row."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["co"]), helper.make_node("Add", ["s", "one"], ["so"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("co", TensorProto.BOOL, []),
            helper.make_tensor_value_info("so", TensorProto.FLOAT, [1]),
        ],
        [numpy_helper.from_array(np.array([1], np.float32), "one")],
    )
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["n"], ["m"], keepdims=0),
            helper.make_node("Loop", ["m", "true", "zero"], ["y"], body=body),
        ],
        "steps",
        [helper.make_tensor_value_info("n", TensorProto.INT64, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [
            numpy_helper.from_array(np.array(True), "true"),
            numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_bench_measures_all_rows_and_shows_how_they_differ(tmp_path) -> None:
    """The first row needs 1 step, the others 400 or 100."""
    rows = np.tile(np.array([[400], [100]]), (20, 1))
    rows[0] = 1
    report = onnxtool.bench(steps(tmp_path / "steps.onnx"), data={"n": rows}, duration=0.5, threads=(1,))
    (cell,) = report.subjects[0].bench.cells
    assert (cell.batches, cell.shapes) == (40, {"n": [1, 1]})
    assert cell.latency.between.batches == 40
    assert cell.latency.between.high_s > 1.5 * cell.latency.between.low_s
    assert "the latency depends on the row: medians of 40 batches" in " ".join(render(report, "text").split())


def embedding(path, wrong_from: int | None = None):
    """A model of text of any length, whose places from one on may be wrong."""
    places = np.random.default_rng(1).normal(size=(64, 8)).astype(np.float32)
    if wrong_from:
        places[wrong_from:] = 0
    words = np.random.default_rng(2).normal(size=(50, 8)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["x"]),
        helper.make_node("Shape", ["ids"], ["length"], start=1, end=2),
        helper.make_node("Slice", ["places", "zero", "length"], ["p"]),
        helper.make_node("Add", ["x", "p"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "embedding",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "seq"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "seq", 8])],
        [
            numpy_helper.from_array(places, "places"),
            numpy_helper.from_array(words, "words"),
            numpy_helper.from_array(np.zeros(1, np.int64), "zero"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_cells_name_the_sizes_that_they_were_measured_at(tmp_path) -> None:
    model = embedding(tmp_path / "model.onnx")
    report = onnxtool.bench(model, shapes={"seq": [5, 40]}, batches=(1, 2), duration=0.05)
    cells = report.subjects[0].bench.cells
    assert [(cell.batch, cell.dims, cell.shapes) for cell in cells] == [
        (batch, {"seq": seq}, {"ids": [batch, seq]}) for batch in (1, 2) for seq in (5, 40)
    ]
    text, page = render(report, "text"), render(report, "html")
    for text_of_sizes in ("seq=5", "seq=40", "[2, 40]"):
        assert (
            text_of_sizes in text
            and text_of_sizes in page
            and text_of_sizes in render(report, "md").replace("\\", "")
        )
    assert "seq=12" in render(onnxtool.bench(model, duration=0.05), "text")
    (found,) = (
        onnxtool.bench(model, against=model, shapes={"seq": [30]}, budget=0.5, undecided="pass")
        .subjects[0]
        .comparisons
    )
    assert found.dims == {"seq": 30}


def test_verify_takes_the_sizes_that_are_asked_for(tmp_path) -> None:
    right, wrong = embedding(tmp_path / "right.onnx"), embedding(tmp_path / "wrong.onnx", wrong_from=20)
    report = onnxtool.verify(wrong, right, shapes={"seq": [12]})
    assert report and any("seq 12" in note for note in report.subjects[0].parity.notes)
    assert not onnxtool.verify(wrong, right)
    report = onnxtool.verify(wrong, right, shapes={"seq": [12, 40]})
    (output,) = report.subjects[0].parity.outputs
    assert not report and output.mismatched_rows == output.rows // 2
    assert onnxtool.verify(right, right, shapes={"seq": [1, 12, 64]})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shape", "length=5"], "no dynamic dimension 'length' besides the batch. It has seq."),
        (["--shape", "batch=5"], "no dynamic dimension 'batch'"),
        (["--shape", "seq=0"], "--shape seq '0' is not a list of whole numbers"),
        (["--shape", "seq"], "not of the form KEY=VALUE"),
        (["--shape", "seq=3", "--data", "rows.npz"], "Leave out --shape or --data."),
    ],
)
@pytest.mark.parametrize("verb", ["bench", "verify"])
def test_shapes_that_cannot_be_had_are_refused(tmp_path, verb, arguments, words) -> None:
    model = str(embedding(tmp_path / "model.onnx"))
    np.savez(tmp_path / "rows.npz", ids=np.zeros((3, 7), np.int64))
    arguments = [str(tmp_path / text) if text == "rows.npz" else text for text in arguments]
    models = [model] * (2 if verb == "verify" else 1)
    with pytest.raises(UsageError) as found:
        CliRunner().invoke(cli, [verb, *models, *arguments], standalone_mode=False, catch_exceptions=False)
    assert words in str(found.value)
