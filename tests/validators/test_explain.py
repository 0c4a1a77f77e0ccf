"""Where and why two models diverge."""

import keras
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import onnxtool
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.onnx.double import evaluate_in_double
from onnxtool.models.onnx.source import OnnxSource
from onnxtool.reports.model import Stage
from onnxtool.reports.render import render
from onnxtool.validators.parity.explain import _break, explain
from onnxtool.validators.parity.pairs import Pair


def explanation(model, source, **options):
    report = onnxtool.verify(model, source, explain=True, **options)
    return report, report.subjects[0].parity.explanation


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Digits through a scaler into a forest, converted by skl2onnx as it comes: (x - mean) * (1 / scale)."""
    import skl2onnx

    path = tmp_path_factory.mktemp("digits") / "digits.onnx"
    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32)
    model = make_pipeline(StandardScaler(), RandomForestClassifier(50, random_state=0)).fit(x, y)
    path.write_bytes(skl2onnx.to_onnx(model, x[:1], options={"zipmap": False}).SerializeToString())
    return path, model, x


def test_a_threshold_passed_by_one_rounding_is_named(digits):
    path, model, x = digits
    report, found = explanation(path, model, data=x)
    assert report.subjects[0].parity.outputs[1].mismatched_rows > 100
    assert found.stages[found.first_difference].kind == "StandardScaler"
    assert found.stages[found.first_failure].kind == "RandomForestClassifier"
    assert "other side of a tree's threshold" in found.cause
    assert "comes from standardscaler" in found.cause
    assert any("on two sides of the threshold" in detail for detail in found.details)
    (components,) = found.error_components
    assert components.total == pytest.approx(0.04, abs=1e-3)
    for name in ("text", "md", "html"):
        assert "standardscaler" in render(report, name)


def changed(path, pick, factor, to):
    """A copy of a model one of whose weights is multiplied."""
    proto = onnx.load(path)
    tensor = next(t for t in proto.graph.initializer if pick(t))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
    onnx.save(proto, to)
    return to


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.middle = nn.Linear(8 * 64, 48)
        self.last = nn.Linear(48, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        return self.last(torch.relu(self.middle(x.flatten(1))))


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    program = torch.export.export(
        Net().eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes={"x": {0: torch.export.Dim("batch")}}
    )
    torch.export.save(program, folder / "net.pt2")
    onnxtool.convert(folder / "net.pt2", folder / "net.onnx")
    return folder


@pytest.mark.parametrize("source", ["net.pt2", "live"])
def test_the_layer_with_the_wrong_weight_is_named(net, source):
    wrong = changed(
        net / "net.onnx", lambda t: list(t.dims) == [48, 512] or list(t.dims) == [512, 48], 1.02, net / "w.onnx"
    )
    given = net / source if source != "live" else Net().eval()
    options = {} if source != "live" else {"inputs": ["x:float32[batch,3,8,8]"]}
    report, found = explanation(wrong, given, **options)
    assert not report
    stage = found.stages[found.first_failure]
    assert stage.name == ("linear" if source != "live" else "middle")
    assert stage.difference > 1e-3
    assert max(entry.difference or 0 for entry in found.stages[: found.first_failure]) < 1e-5
    (components,) = found.error_components
    assert components.conversion == pytest.approx(components.total, rel=1e-2)
    assert components.source < 1e-3 * components.total > components.provider


def test_an_honest_model_has_no_break(net):
    report, found = explanation(net / "net.onnx", net / "net.pt2")
    assert report
    assert found.first_failure is None
    assert "No single step" in found.cause


def test_layers_are_found_by_value_with_channels_first_and_last(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            keras.layers.Conv2D(6, 3, activation="relu", name="conv"),
            keras.layers.Conv2D(4, 3, name="second"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(3, activation="softmax", name="classes"),
        ]
    )
    onnxtool.convert(model, tmp_path / "m.onnx")
    wrong = changed(tmp_path / "m.onnx", lambda t: list(t.dims) == [4, 6, 3, 3], 1.01, tmp_path / "w.onnx")
    report, found = explanation(wrong, model)
    assert not report
    assert found.stages[found.first_failure].name == "second"
    assert found.stages[0].tensor


def test_of_two_graphs_the_node_is_named(net):
    wrong = changed(
        net / "net.onnx", lambda t: list(t.dims) == [5, 48] or list(t.dims) == [48, 5], 1.02, net / "v.onnx"
    )
    _, found = explanation(wrong, net / "net.onnx")
    assert found.stages[found.first_failure].kind in ("Gemm", "MatMul")
    assert all(stage.matched_by == "name" for stage in found.stages if stage.tensor)


def test_a_source_without_steps_is_compared_with_double_precision(tmp_path):
    from sklearn.linear_model import LinearRegression

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)).astype(np.float32)
    model = LinearRegression().fit(x, x @ [1.0, 2.0, 3.0, 4.0])
    onnxtool.convert(model, tmp_path / "m.onnx")
    _, found = explanation(tmp_path / "m.onnx", LinearRegression().fit(x, x @ [1.0, 2.0, 3.0, 4.1]), data=x)
    assert found.against == "float64"
    assert "computes the graph as float64 does" in found.cause
    (components,) = found.error_components
    assert components.conversion > 1000 * components.provider


def test_double_precision_is_exact_to_its_own_rounding(tmp_path):
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["one"], value_float=1.0),
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["f", "w"], ["y"]),
            helper.make_node("Add", ["y", "one"], ["z"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", 50])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(np.full((50, 1), 0.1, np.float32), "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    x = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float16)
    found = evaluate_in_double(proto, {"x": x})["z"]
    assert found.dtype == np.float64
    np.testing.assert_allclose(
        found, x.astype(float) @ np.full((50, 1), np.float64(np.float32(0.1))) + 1, rtol=1e-15
    )


@given(st.lists(st.floats(1e-9, 1e-7), min_size=1, max_size=30), st.integers(0, 29))
def test_the_break_is_the_first_jump(differences, place):
    stages = [Stage(name="s", kind="k", tensor="t", difference=value) for value in differences]
    assert _break(stages, 2.0**-24) is None
    place %= len(stages)
    stages[place:] = [stage.model_copy(update={"difference": 1e-2}) for stage in stages[place:]]
    assert _break(stages, 2.0**-24) == place


def save(path, nodes, constants, opset=(("", 17),)):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy")
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "small", [x], [y], weights)
    imports = [helper.make_opsetid(*entry) for entry in opset]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)
    return path


def test_a_difference_that_the_session_makes_is_not_put_on_the_conversion(tmp_path):
    """ONNX Runtime's approximation of Gelu, which an option turns on: on the CPU without it the model agrees."""
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["a"], "scale"),
        helper.make_node("Gelu", ["a"], ["b"], "gelu", domain="com.microsoft"),
        helper.make_node("Neg", ["b"], ["y"], "neg"),
    ]
    model = save(tmp_path / "m.onnx", nodes, {"two": np.float32(2)}, (("", 17), ("com.microsoft", 1)))
    option = "optimization.enable_gelu_approximation"
    report, found = explanation(model, model, options={option: "1"})
    assert not report and found.provider == "CPUExecutionProvider"
    assert found.cause.startswith(f"CPU with {option}=1 computes otherwise than the CPU, where the model agrees")
    assert found.stages[found.first_failure].name == "gelu"
    assert found.stages[0].difference == 0
    assert "compared with the same graph on the CPU" in " ".join(render(report, "text").split())


@pytest.fixture(scope="module")
def right_and_wrong_above_16_rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches")
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], "shape", end=1),
        helper.make_node("Greater", ["shape", "sixteen"], ["many"], "greater"),
        helper.make_node("Cast", ["many"], ["one"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "one"], ["y"], "add"),
    ]
    wrong = save(folder / "wrong.onnx", nodes, {"sixteen": np.array([16], np.int64)})
    return save(folder / "right.onnx", [helper.make_node("Identity", ["x"], ["y"], "same")], {}), wrong


def test_the_batch_that_fails_is_explained_and_named(right_and_wrong_above_16_rows):
    right, wrong = right_and_wrong_above_16_rows
    report, found = explanation(wrong, right)
    assert not report
    assert "The rows differ in a batch of 17, and not in batches of 1, 3." in found.details
    assert found.first_failure is not None and found.stages[found.first_failure].difference > 0.1


def test_a_difference_that_does_not_appear_again_is_said_so(right_and_wrong_above_16_rows):
    right, wrong = map(OnnxModel.read, right_and_wrong_above_16_rows)
    rows = {"x": np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)}
    found = explain(Pair(OnnxSource(right), wrong), {5: {"x": rows["x"][5:6]}}, rows, sizes=[1, 3, 16])
    assert found.cause.startswith("The difference did not appear again: in batches of 1, 3, 16 ")
    assert found.stages == []
