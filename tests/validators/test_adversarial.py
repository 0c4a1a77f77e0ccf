"""The search finds what a sample misses, and nothing where there is nothing."""

import subprocess
import sys

import joblib
import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

import onnxtool
from onnxtool.errors import UsageError
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.signature import TensorSpec
from onnxtool.models.source import SourceModel
from onnxtool.reports.json import read
from onnxtool.validators.parity.pairs import Pair
from onnxtool.validators.parity.rowwise import RowComparer
from onnxtool.validators.parity.search import Budget, search
from onnxtool.validators.parity.thresholds import graph_thresholds

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 4)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(int)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the worst rows go


class Source(SourceModel):
    """A source in NumPy."""

    framework, framework_version, model = "numpy", "1", None

    def __init__(self, function, width=4):
        self.inputs = (TensorSpec("x", "float32", ("batch", width)),)
        self._function = function

    def predict(self, tensors):
        return {"y": self._function(tensors["x"]).astype(np.float32)}


def graph(path, nodes, weights, width=4):
    onnx_graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None])],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return OnnxModel.read(path)


@pytest.fixture
def sums(tmp_path):
    return graph(tmp_path / "sums.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.ones((4, 1))})


def found(result, name):
    return next(category for category in result.categories if category.name == name)


def test_an_honest_model_comes_through(sums):
    result = search(Pair(Source(lambda x: x.sum(axis=1, keepdims=True)), sums), {"x": X}, budget="12000")
    assert result.passed, result.categories
    assert result.rows >= 12_000
    assert {"ordinary rows", "large numbers", "NaN and infinity", "batch invariance"} <= {
        category.name for category in result.categories
    }


WIDTH = 12
WIDE = np.random.default_rng(4).normal(size=(400, WIDTH)).astype(np.float32)


def _bump(x):
    """A sum, but for a hill in a corner that no ordinary row reaches, whose foot is within tolerance."""
    distance = x.astype(float) - 2.5 * (-1) ** np.arange(WIDTH)
    return x.sum(axis=1, keepdims=True) + 5e-5 * np.exp(-(distance**2).sum(axis=1, keepdims=True) / 20)


@pytest.fixture
def wide(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return Pair(Source(_bump, WIDTH), graph(tmp_path / "wide.onnx", nodes, {"w": np.ones((WIDTH, 1))}, WIDTH))


def test_climbing_finds_what_sampling_does_not(wide):
    """As many rows drawn from the same range do not come near what the search reaches."""
    result = search(wide, {"x": WIDE}, budget="30000", seed=1)
    assert not found(result, "ordinary rows").mismatches
    low, high = WIDE.min(axis=0), WIDE.max(axis=0)
    room = (high - low) / 2
    rows = np.random.default_rng(2).uniform(low - room, high + room, (30_000, WIDTH)).astype(np.float32)
    comparer = RowComparer(wide, wide.tolerances({"x": WIDE}, ["y"], None, None))
    sampled = comparer({"x": rows}).excess.max()
    assert found(result, "hill climbing").mismatches
    assert found(result, "hill climbing").worst > 1.5 * sampled


def test_the_same_budget_of_rows_finds_the_same(wide):
    first, second = (search(wide, {"x": WIDE}, budget="6000", seed=3) for _ in range(2))
    assert first.model_dump(exclude={"seconds"}) == second.model_dump(exclude={"seconds"})


def test_thresholds_are_visited_on_both_sides(tmp_path):
    """A tree whose thresholds are one rounding too low in ONNX says the same on every ordinary row."""
    source = DecisionTreeClassifier(random_state=0).fit(X, Y)
    onnxtool.convert(source, tmp_path / "tree.onnx", data=X)
    proto = onnx.load(tmp_path / "tree.onnx")
    (node,) = (node for node in proto.graph.node if node.op_type.startswith("TreeEnsemble"))
    for entry in node.attribute:
        if entry.name == "nodes_values":
            lowered = np.nextafter(np.array(entry.floats, np.float32), np.float32(-np.inf))
            entry.floats[:] = np.nextafter(lowered, np.float32(-np.inf)).tolist()
        elif entry.name in ("nodes_values_as_tensor", "nodes_splits"):
            pytest.fail("the test lowers another attribute")
    onnx.save(proto, tmp_path / "low.onnx")
    report = onnxtool.verify(
        tmp_path / "low.onnx", source, data=X, adversarial=True, budget="8000", save_worst=tmp_path / "worst.npz"
    )
    assert report.subjects[0].parity.passed
    assert not report
    result = report.subjects[0].search
    assert found(result, "tree thresholds").mismatches
    assert not found(result, "ordinary rows").mismatches
    assert not onnxtool.verify(tmp_path / "low.onnx", source, data=tmp_path / "worst.npz")
    assert result.saved == str(tmp_path / "worst.npz")
    assert onnxtool.verify(tmp_path / "tree.onnx", source, data=tmp_path / "worst.npz")


def test_thresholds_are_followed_back_through_a_scaler(tmp_path):
    import skl2onnx

    scaler, tree = StandardScaler(), DecisionTreeClassifier(max_depth=3, random_state=0)
    model = make_pipeline(scaler, tree).fit(5 * X + 3, Y)
    proto = skl2onnx.to_onnx(model, X[:1], options={"zipmap": False})
    marks = graph_thresholds(proto)["X"]
    inner = tree.tree_.children_left >= 0
    for column in range(4):
        chosen = inner & (tree.tree_.feature == column)
        raw = np.unique(tree.tree_.threshold[chosen]) * scaler.scale_[column] + scaler.mean_[column]
        np.testing.assert_allclose(marks.get(column, []), raw, rtol=1e-5)


def test_missing_values_and_infinity_are_tried(tmp_path):
    model = graph(
        tmp_path / "m.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["s"]), helper.make_node("Relu", ["s"], ["y"])],
        {"w": np.ones((4, 1))},
    )
    # What PyTorch and NumPy do not agree on with some runtimes: the maximum of NaN and zero.
    source = Source(lambda x: np.fmax(x.sum(axis=1, keepdims=True), 0))
    result = search(Pair(source, model), {"x": X}, budget="9000")
    category = found(result, "NaN and infinity")
    assert category.mismatches
    assert not found(result, "ordinary rows").mismatches


def test_the_model_that_rejects_a_row_is_reported(sums):
    def refuse(x):
        if np.isnan(x).any():
            raise ValueError("no NaN here")
        return x.sum(axis=1, keepdims=True)

    result = search(Pair(Source(refuse), sums), {"x": X}, budget="8000")
    category = found(result, "NaN and infinity")
    assert result.passed
    assert category.findings == ["The source refuses what the other answers: no NaN here (4 times)"]


def test_a_row_that_depends_on_its_batch_is_found(tmp_path):
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    model = graph(tmp_path / "m.onnx", nodes, {})
    source = Source(lambda x: x - x.max(axis=0, keepdims=True))
    result = search(Pair(source, model), {"x": X}, budget="8000")
    assert any("depends on the other rows" in text for text in found(result, "batch invariance").findings)


def test_categories_that_were_never_seen_are_tried(tmp_path):
    words = np.array(["a", "b", "c"], dtype=object)[RNG.integers(0, 3, (400, 1))]
    import pandas as pd

    frame = pd.DataFrame({"number": X[:, 0], "word": words[:, 0]})
    encoder = OneHotEncoder(handle_unknown="ignore")
    model = make_pipeline(
        make_column_transformer((StandardScaler(), ["number"]), (encoder, ["word"])), LogisticRegression()
    ).fit(frame, Y)
    onnxtool.convert(model, tmp_path / "m.onnx", data=frame)
    report = onnxtool.verify(tmp_path / "m.onnx", model, data=frame, adversarial=True, budget="9000")
    assert report, report.subjects[0].checks
    assert found(report.subjects[0].search, "text and categories").rows >= 10
    wrong = onnx.load(tmp_path / "m.onnx")  # an encoder that takes the unknown for a category
    (node,) = (node for node in wrong.graph.node if node.op_type == "OneHotEncoder")
    for entry in node.attribute:
        if entry.name == "cats_strings":
            entry.strings[2] = b"never seen"
    onnx.save(wrong, tmp_path / "w.onnx")
    changed = frame.assign(word=np.where(frame["word"] == "c", "a", frame["word"]))
    report = onnxtool.verify(tmp_path / "w.onnx", model, data=changed, adversarial=True, budget="9000")
    assert report.subjects[0].parity.passed
    assert found(report.subjects[0].search, "text and categories").mismatches


def test_labels_between_which_the_source_cannot_decide_are_ties(tmp_path):
    model = LogisticRegression().fit(X, Y)
    onnxtool.convert(model, tmp_path / "m.onnx")
    report = onnxtool.verify(tmp_path / "m.onnx", model, data=X, adversarial=True, budget="12000")
    result = report.subjects[0].search
    assert report, result.categories
    assert found(result, "decision boundaries").rows > 1000


def test_a_forest_behind_a_scaler_comes_through_at_every_threshold(tmp_path):
    model = make_pipeline(StandardScaler(), RandomForestClassifier(10, random_state=0)).fit(X, Y)
    onnxtool.convert(model, tmp_path / "m.onnx", data=X)
    report = onnxtool.verify(tmp_path / "m.onnx", model, data=X, adversarial=True, budget="20000")
    result = report.subjects[0].search
    assert found(result, "tree thresholds").rows > 1000
    assert not found(result, "tree thresholds").mismatches


@given(st.integers(1, 10**9))
def test_a_budget_is_rows_or_seconds(number):
    assert Budget.parse(str(number)).rows == number
    assert Budget.parse(f"{number}s").seconds == number


@pytest.mark.parametrize("text", ["", "ten", "0", "0s", "1.5", "-3", "5m"])
def test_what_is_no_budget_is_an_error(text):
    with pytest.raises(UsageError, match="--budget"):
        Budget.parse(text)


def test_worst_rows_of_text_and_numbers_are_replayed(tmp_path):
    frame = pd.DataFrame({"plan": RNG.choice(["basic", "gold", "プロ"], 300), "age": RNG.normal(40, 9, 300)})
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["plan"]), (StandardScaler(), ["age"])
    )
    model = make_pipeline(columns, LogisticRegression()).fit(frame, frame["age"] > 40)
    other = make_pipeline(columns, LogisticRegression()).fit(frame, frame["plan"] == "gold")
    joblib.dump(other, tmp_path / "other.joblib")
    assert onnxtool.convert(model, tmp_path / "m.onnx", data=frame)
    command = [sys.executable, "-m", "onnxtool", "verify", "m.onnx", "other.joblib"]
    finished = subprocess.run(
        [*command, "--adversarial", "--budget", "200", "--save-worst", "worst.npz", "--json", "search.json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 1, finished.stderr
    replayed = subprocess.run(
        [*command, "--data", "worst.npz", "--json", "replay.json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert replayed.returncode == 1, replayed.stderr
    parity = read(tmp_path / "replay.json").subjects[0].parity
    assert parity.rows == 16
    assert max(output.label_flips or 0 for output in parity.outputs) == 16
