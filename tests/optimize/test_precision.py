"""Float16 and int8 of real models: what passes, what is repaired, and what is refused."""

import json
import re

import numpy as np
import onnx
import onnxruntime
import pytest
from catboost import CatBoostClassifier
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

import onnxtool
from onnxtool.api import lowering as verb
from onnxtool.api import optimizing
from onnxtool.cli import cli
from onnxtool.converters.precision import half
from onnxtool.converters.precision.graph import prepared
from onnxtool.converters.precision.quantize import QUANTIZED, Calibrated, Recipe
from onnxtool.errors import ConversionError, UsageError
from onnxtool.reports.render import render


@pytest.fixture(autouse=True)
def _short(monkeypatch, request):
    """The latency is reported, and is no gate: it is measured in the tests of whole networks alone."""
    monkeypatch.setattr(optimizing, "BUDGET_S", 0.05)
    monkeypatch.setattr(optimizing, "BATCHES", (1,))
    if request.node.originalname != "test_networks_are_made_less_precise":
        monkeypatch.setattr(verb, "compare", lambda *models: [])


def run(model, rows):
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: rows})


def dtypes(model):
    return {tensor.data_type for tensor in model.graph.initializer}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("kind", ["cnn", "transformer", "keras", "sklearn"])
def test_networks_are_made_less_precise(converted, kind, precision, tmp_path):
    path, rows = converted(kind)
    report = onnxtool.convert(str(path), tmp_path / "low.onnx", data=rows, precision=precision)
    assert report, report.subjects[0].checks
    subject = report.subjects[0]
    lowering = subject.conversion.lowering
    assert lowering.passed
    assert lowering.rows == len(rows)
    assert lowering.size_bytes < 0.9 * lowering.full_size_bytes
    assert [check.id for check in subject.checks] == ["parity", "precision"]
    assert [found.batch for found in lowering.comparisons] == [1]
    low, full = onnx.load(tmp_path / "low.onnx"), onnx.load(path)
    assert [value.SerializeToString() for value in (*low.graph.input, *low.graph.output)] == [
        value.SerializeToString() for value in (*full.graph.input, *full.graph.output)
    ]
    properties = {entry.key: entry.value for entry in low.metadata_props}
    assert properties.pop("onnxtool.precision") == precision
    assert properties.keys() == {entry.key for entry in full.metadata_props}
    expected = {TensorProto.FLOAT16} if precision == "fp16" else {TensorProto.INT8, TensorProto.INT32}
    assert expected & dtypes(low)
    truth, found = (run(model, rows)[-1] for model in (path, tmp_path / "low.onnx"))
    assert np.sqrt(((found - truth) ** 2).mean()) <= 0.05 * truth.std()
    assert (found.argmax(axis=1) != truth.argmax(axis=1)).mean() <= 0.02
    if precision == "int8":
        recipes = [attempt.recipe for attempt in lowering.attempts[:6]]
        assert [recipe.partition(",")[0] for recipe in recipes[:3]] == ["MinMax", "Percentile", "Entropy"]
        assert lowering.notes[0] == "Calibrated on 256 rows."
        assert lowering.recipe in recipes


def test_quality_decides_where_rows_are_labelled(networks, digits, tmp_path):
    rows, labels = digits
    np.savez(tmp_path / "rows.npz", X=rows, digit=labels)
    report = onnxtool.convert(
        networks("sklearn"), tmp_path / "low.onnx", data=tmp_path / "rows.npz", labels="digit", precision="int8"
    )
    assert report
    subject = report.subjects[0]
    measures = {loss.measure: loss for loss in subject.conversion.lowering.losses}
    assert measures["loss of accuracy"].high <= 0.01
    assert measures["growth of log loss"].allowed is None
    assert {metric.name: metric.allowed for metric in subject.drift.metrics}["accuracy"] == 0.01
    assert "loss of accuracy" in next(check.message for check in subject.checks if check.id == "precision")


def test_logits_are_scored_where_rows_are_labelled(converted, networks, digits, tmp_path):
    _, rows = converted("cnn")
    np.save(tmp_path / "labels.npy", digits[1][-len(rows) :])
    report = onnxtool.convert(
        networks("cnn"), tmp_path / "low.onnx", data=rows, labels=str(tmp_path / "labels.npy"), precision="fp16"
    )
    assert report.subjects[0].drift.task == "classification"
    assert report.subjects[0].drift.metrics[0].name == "accuracy"


def unlike_columns(graph, depth=1, width=8):
    """A network whose first tensor holds numbers of very different size, which one scale cannot serve."""
    rng = np.random.default_rng(0)
    scale = np.ones(width, np.float32)
    scale[0] = 3000
    first = (rng.normal(size=(width, 16)) / scale[:, None]).astype(np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["a0"], name="scale_up"),
        helper.make_node("MatMul", ["a0", "w0"], ["a1"], name="first"),
    ]
    weights = {"scale": scale, "w0": first}
    for layer in range(1, depth):
        nodes.append(helper.make_node("Relu", [f"a{2 * layer - 1}"], [f"a{2 * layer}"], name=f"relu_{layer}"))
        nodes.append(
            helper.make_node(
                "MatMul", [f"a{2 * layer}", f"w{layer}"], [f"a{2 * layer + 1}"], name=f"product_{layer}"
            )
        )
        weights[f"w{layer}"] = (rng.normal(size=(16, 16)) / 4).astype(np.float32)
    nodes[-1].output[0] = "y"
    return graph(nodes, ("batch", width), ("batch", 16), **weights), rng.normal(size=(300, width)).astype(
        np.float32
    )


def test_nodes_that_int8_hurts_stay_in_float32(graph, tmp_path):
    path, rows = unlike_columns(graph, depth=4)
    report = onnxtool.convert(str(path), tmp_path / "low.onnx", data=rows, precision="int8")
    assert report, report.subjects[0].checks
    lowering = report.subjects[0].conversion.lowering
    assert not any(attempt.passed for attempt in lowering.attempts[:6])
    assert "first" in lowering.kept
    assert not {"product_1", "product_2", "product_3"} <= {*lowering.kept}
    assert lowering.sensitivity["first"] > 5 * max(lowering.sensitivity[f"product_{layer}"] for layer in (1, 2, 3))
    assert dtypes(onnx.load(tmp_path / "low.onnx")) & {TensorProto.INT8}
    text = re.sub(r"\s+", " ", render(report, "text"))
    assert "In float32: " in text
    assert "Relative error of a node alone" in text
    assert "first" in render(report, "html")


def test_a_model_that_int8_ruins_is_refused(graph, tmp_path):
    path, rows = unlike_columns(graph)
    np.save(tmp_path / "rows.npy", rows)
    command = [
        "convert", str(path), "-o", str(tmp_path / "low.onnx"), "--data", str(tmp_path / "rows.npy"),
        "--precision", "int8", "--json", str(tmp_path / "report.json"),
    ]  # fmt: skip
    found = CliRunner().invoke(cli, command, standalone_mode=False)
    assert found.return_value == 1
    report = json.loads((tmp_path / "report.json").read_text())
    lowering = report["subjects"][0]["conversion"]["lowering"]
    assert not lowering["passed"]
    assert not any(attempt["passed"] for attempt in lowering["attempts"])
    assert "It does not pass with any number of nodes kept in float32." in lowering["notes"]
    assert "relative error of y" in found.output
    found = CliRunner().invoke(cli, [*command, "--max-loss", "500%"], standalone_mode=False)
    assert found.return_value == 0


@pytest.fixture
def overflowing(graph):
    """A product whose sums leave float16's range in the middle of the graph, and come back."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="before"),
        helper.make_node("Mul", ["a", "up"], ["b"], name="up"),
        helper.make_node("Add", ["b", "one"], ["c"], name="large"),
        helper.make_node("Mul", ["c", "down"], ["d"], name="down"),
        helper.make_node("MatMul", ["d", "v"], ["y"], name="after"),
    ]
    weights = {name: rng.normal(size=(8, 8)).astype(np.float32) for name in "wv"}
    constants = {"up": np.float32(1e5), "one": np.float32(1), "down": np.float32(1e-5)}
    return graph(nodes, ("batch", 8), **weights, **constants), rng.normal(size=(200, 8)).astype(np.float32)


def test_numbers_beyond_float16_stay_in_float32(overflowing, tmp_path):
    path, rows = overflowing
    ready = prepared(onnx.load(path), "fp16", half.OPERATORS)
    assert not np.isfinite(run(half.rounded(ready, frozenset()), rows)[0]).all()
    report = onnxtool.convert(str(path), tmp_path / "low.onnx", data=rows, precision="fp16")
    assert report, report.subjects[0].checks
    lowering = report.subjects[0].conversion.lowering
    assert lowering.kept == ["up", "large", "down"]
    assert any("up stays in float32: numbers go up to" in note for note in lowering.notes)
    low = onnx.load(tmp_path / "low.onnx")
    assert TensorProto.FLOAT16 in dtypes(low)
    truth, found = run(path, rows)[0], run(low, rows)[0]
    assert np.abs(found - truth).max() <= 0.01 * np.abs(truth).max()
    # The kept ones hand on their numbers as they are: no cast to float16 stands between them.
    readers = {name: node for node in low.graph.node for name in node.input}
    large = next(node for node in low.graph.node if node.name == "large")
    assert readers[large.output[0]].name == "down"


def test_rows_that_float16_cannot_hold_are_found_by_their_nodes(overflowing):
    path, rows = overflowing
    ready = prepared(onnx.load(path), "fp16", half.OPERATORS)
    assert half.overflowing(ready, {"x": rows}).keys() == {"up", "large", "down"}
    assert half.overflowing(ready, {"x": rows * 0}).keys() == {"up"}  # for its factor, 1e5


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(3),
        LogisticRegression(),
        CatBoostClassifier(
            iterations=3, verbose=0, allow_writing_files=False
        ),  # its tables are added up by a product
    ],
)
def test_there_is_nothing_to_quantize_in_trees_and_their_like(model, precision, digits, tmp_path):
    rows, labels = digits
    with pytest.raises(ConversionError, match="nothing to make less precise") as error:
        onnxtool.convert(
            model.fit(rows[:300], labels[:300] > 4), tmp_path / "m.onnx", data=rows[:50], precision=precision
        )
    assert ("TreeEnsemble" in str(error.value)) == isinstance(model, RandomForestClassifier)
    assert not (tmp_path / "m.onnx").exists()


def test_without_data_ranges_are_found_in_each_run(networks, converted, tmp_path):
    report = onnxtool.convert(networks("keras"), tmp_path / "low.onnx", precision="int8")
    lowering = report.subjects[0].conversion.lowering
    assert lowering.recipe in {f"ranges found in each run, weights of {bits} bits" for bits in (7, 8)}
    assert "made-up rows" in lowering.notes[0]
    kinds = {node.op_type for node in onnx.load(tmp_path / "low.onnx").graph.node}
    assert {"DynamicQuantizeLinear", "MatMulInteger"} <= kinds
    path, rows = converted("keras")
    truth, found = (run(model, rows)[0] for model in (path, tmp_path / "low.onnx"))
    assert (found.argmax(axis=1) != truth.argmax(axis=1)).mean() <= 0.02


def test_an_lstm_is_quantized_too(graph, tmp_path):
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "w", "r"], ["", "last"], hidden_size=16),
        helper.make_node("Squeeze", ["last", "first"], ["state"]),
        helper.make_node("MatMul", ["state", "v"], ["y"]),
    ]
    shapes = {"w": (1, 64, 4), "r": (1, 64, 16), "v": (16, 3)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    path = graph(nodes, ("batch", 6, 4), ("batch", 3), first=np.array([0]), **weights)
    rows = rng.normal(size=(200, 6, 4)).astype(np.float32)
    report = onnxtool.convert(str(path), tmp_path / "low.onnx", data=rows, precision="int8")
    assert report, report.subjects[0].checks
    assert "LSTM" in report.subjects[0].conversion.lowering.notes[0]
    assert "DynamicQuantizeLSTM" in {node.op_type for node in onnx.load(tmp_path / "low.onnx").graph.node}


def test_mlnets_rules_are_kept(networks, converted, tmp_path):
    _, rows = converted("sklearn")
    report = onnxtool.convert(
        networks("sklearn"), tmp_path / "low.onnx", data=rows, precision="fp16", target="mlnet"
    )
    assert report
    assert onnxtool.lint(tmp_path / "low.onnx").passed
    low = onnx.load(tmp_path / "low.onnx")
    constants = [node.attribute[0].t.data_type for node in low.graph.node if node.op_type == "Constant"]
    assert TensorProto.FLOAT16 in constants
    assert TensorProto.FLOAT16 not in dtypes(low)


def test_a_portable_optimisation_comes_first(networks, converted, tmp_path):
    _, rows = converted("sklearn")
    report = onnxtool.convert(
        networks("sklearn"), tmp_path / "low.onnx", data=rows, precision="int8", optimize="basic"
    )
    assert report
    assert len(report.subjects[0].conversion.candidates) == 4
    assert report.subjects[0].conversion.lowering.passed


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(5,), (1, 5), (1, 1), (1,), (), (5, 1)])
def test_a_bias_of_any_shape_is_quantized(shape, transposed):
    """Optimisers fuse MatMul and Add into a Gemm with a bias of [1, columns], which the quantizer refuses."""
    rng = np.random.default_rng(0)
    count = 5 if shape == (5, 1) else 32  # a number a row is left as it is
    rows = rng.normal(size=(count, 3)).astype(np.float32)
    weight, bias = rng.normal(size=(3, 5)).astype(np.float32), rng.normal(size=shape).astype(np.float32)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="layer", transB=int(transposed))
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 5])],
        [
            numpy_helper.from_array(weight.T.copy() if transposed else weight, "w"),
            numpy_helper.from_array(bias, "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    calibrated = Calibrated(prepared(model, "int8", QUANTIZED), [{"x": rows}])
    if shape == (5, 1):
        assert calibrated.model.graph.initializer[1].dims == [5, 1]
        return
    (quantized,) = run(calibrated.quantized(Recipe()), rows)
    np.testing.assert_allclose(quantized, rows @ weight + bias, atol=0.1)
    assert model.graph.initializer[1].dims == list(shape)  # the caller's stays as it was


def test_options_that_do_not_go_together(converted, tmp_path):
    path, rows = converted("sklearn")
    to = tmp_path / "o.onnx"
    with pytest.raises(UsageError, match="--optimize basic"):
        onnxtool.convert(str(path), to, data=rows, precision="fp16", optimize="full")
    with pytest.raises(UsageError, match="go with --precision"):
        onnxtool.convert(str(path), to, data={"X": rows, "y": np.zeros(len(rows))}, labels="y")
    with pytest.raises(UsageError, match="goes with --data"):
        onnxtool.convert(str(path), to, labels="y", precision="int8")
    with pytest.raises(UsageError, match="--no-verify"):
        onnxtool.convert(str(path), to, precision="int8", verify=False)
