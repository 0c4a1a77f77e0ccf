"""Dynamic dimensions are proved at several sizes, and none stays open at which the ONNX model is wrong."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxtool
from onnxtool.converters.framework import Conversion, Framework, frameworks
from onnxtool.models.onnx.artifact import BOUNDS
from onnxtool.models.signature import TensorSpec
from onnxtool.models.source import SourceModel
from onnxtool.reports.render import render

node = helper.make_node
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(100, 8)).astype(np.float32)


def constant(name, value):
    return numpy_helper.from_array(np.asarray(value), name)


def graph(nodes, constants=(), shape=("batch", "length"), kind=TensorProto.INT64):
    x = helper.make_tensor_value_info("x", kind, list(shape))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    made = helper.make_graph(nodes, "g", [x], [y], [constant("table", TABLE), *constants])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


EMBED = node("Gather", ["table", "x"], ["e"])
MEAN = node("ReduceMean", ["e", "axis"], ["y"], keepdims=0)
AXIS = constant("axis", np.array([1]))
TEXT = graph([EMBED, MEAN], [AXIS])


def cut_at(size):
    """The mean of the first places only."""
    ends = [constant("zero", np.array([0])), constant("end", np.array([size]))]
    cut = node("Slice", ["x", "zero", "end", "axis"], ["c"])
    return graph([cut, node("Gather", ["table", "c"], ["e"]), MEAN], [AXIS, *ends])


def divided_by(size):
    """The sum divided by the length at which it was traced."""
    total = node("ReduceSum", ["e", "axis"], ["s"], keepdims=0)
    return graph([EMBED, total, node("Div", ["s", "n"], ["y"])], [AXIS, constant("n", np.float32(size))])


def squeezed():
    """A length of 1 loses its dimension, as by a squeeze of all."""
    ones = node("Squeeze", ["e"], ["q"])
    mean = node("ReduceMean", ["q", "axis"], ["y"], keepdims=0)
    return graph([EMBED, ones, mean], [constant("axis", np.array([-2]))])


def reshaped(size):
    """Fails at any other length than one."""
    shape = constant("shape", np.array([-1, size, 8]))
    nodes = [EMBED, node("Reshape", ["e", "shape"], ["r"])]
    return graph([*nodes, node("ReduceMean", ["r", "axis"], ["y"], keepdims=0)], [AXIS, shape])


MUTANTS = {
    "wrong above 20": (cut_at(20), "length 40"),
    "wrong above 128": (cut_at(128), "length 512"),
    "the traced length": (divided_by(12), "length 1,"),
    "wrong at 1": (squeezed(), "length 1"),
    "fails elsewhere": (reshaped(12), "the ONNX model fails"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_model_that_is_wrong_at_another_length_does_not_pass(name, tmp_path):
    mutant, where = MUTANTS[name]
    onnx.save(TEXT, tmp_path / "text.onnx")
    onnx.save(mutant, tmp_path / "mutant.onnx")
    report = onnxtool.verify(tmp_path / "mutant.onnx", tmp_path / "text.onnx", sandbox=None)
    (check,) = report.subjects[0].checks
    assert not report
    assert "They agree at length" in check.message
    assert where in check.message


def test_the_report_names_the_sizes(tmp_path):
    onnx.save(TEXT, tmp_path / "text.onnx")
    report = onnxtool.verify(tmp_path / "text.onnx", tmp_path / "text.onnx", sandbox=None)
    assert report
    (found,) = report.subjects[0].parity.sizes
    assert found.compared == [1, 7, 11, 12, 13, 24, 40, 128, 512]
    for form in ("text", "md", "html"):
        assert "length 1, 7, 11, 12, 13, 24, 40, 128, 512" in " ".join(render(report, form).split())


def images(limit):
    """Means of the channels of images, where those that are wider than a limit are cut."""
    ends = [constant("zero", np.array([0])), constant("end", np.array([limit])), constant("last", np.array([3]))]
    nodes = [node("Slice", ["x", "zero", "end", "last"], ["c"]),
             node("ReduceMean", ["c", "both"], ["y"], keepdims=0)]  # fmt: skip
    shape = ("batch", 3, "height", "width")
    return graph(nodes, [*ends, constant("both", np.array([2, 3]))], shape, TensorProto.FLOAT)


def test_the_dimension_that_is_wrong_is_named(tmp_path):
    onnx.save(images(10_000), tmp_path / "wide.onnx")
    onnx.save(images(100), tmp_path / "narrow.onnx")
    assert onnxtool.verify(tmp_path / "wide.onnx", tmp_path / "wide.onnx", sandbox=None)
    report = onnxtool.verify(tmp_path / "narrow.onnx", tmp_path / "wide.onnx", sandbox=None)
    assert not report
    sizes = {found.dimension: found for found in report.subjects[0].parity.sizes}
    assert [failure.size for failure in sizes["width"].failures] == [160]


def test_two_dimensions_of_one_name_move_together(tmp_path):
    """A mask has the length of its tokens; alone, it would fail."""
    x, mask = (
        helper.make_tensor_value_info(name, kind, ["batch", "length"])
        for name, kind in (("x", TensorProto.INT64), ("mask", TensorProto.FLOAT))
    )
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [EMBED, node("Unsqueeze", ["mask", "last"], ["m"]), node("Mul", ["e", "m"], ["em"]),
             node("ReduceSum", ["em", "axis"], ["y"], keepdims=0)]  # fmt: skip
    constants = [constant("table", TABLE), AXIS, constant("last", np.array([2]))]
    made = helper.make_graph(nodes, "g", [x, mask], [y], constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "m.onnx")
    report = onnxtool.verify(tmp_path / "m.onnx", tmp_path / "m.onnx", sandbox=None)
    assert report
    assert [found.dimension for found in report.subjects[0].parity.sizes] == ["length"]


# -- Conversion --------------------------------------------------------------------------------------------------


class Text:
    """A model of some framework: the mean of embeddings, of at most so many tokens."""

    def __init__(self, converted, most=10_000):
        self.converted, self.most = converted, most


class TextSource(SourceModel):
    framework, framework_version = "text", "1"
    inputs = (TensorSpec("x", "int64", ("batch", "length")),)

    def __init__(self, model):
        self.model = model

    def predict(self, tensors):
        if tensors["x"].shape[1] > self.model.most:
            raise ValueError("too long")
        return {"y": TABLE[tensors["x"]].mean(axis=1)}

    def domains(self):
        from onnxtool.models.rows.domain import Domain

        return {"x": Domain(high=100)}


class TextFramework(Framework):
    name, extra, default_opset, max_opset = "text", "text", 18, 18

    def recognises(self, source):
        return False

    def owns(self, model):
        return isinstance(model, Text)

    def load(self, source, options):
        raise AssertionError

    def wrap(self, model, options):
        return TextSource(model)

    def convert(self, source, example, options):
        copy = onnx.ModelProto()
        copy.CopyFrom(source.model.converted)
        return Conversion(copy)


@pytest.fixture
def _framework(monkeypatch):
    monkeypatch.setitem(frameworks(), "text", TextFramework())


@pytest.mark.usefixtures("_framework")
def test_a_dimension_at_whose_other_sizes_the_model_is_wrong_is_fixed(tmp_path):
    report = onnxtool.convert(Text(cut_at(20)), tmp_path / "m.onnx")
    assert report
    (message,) = [choice for choice in report.subjects[0].conversion.choices if "length" in choice]
    assert message.startswith(
        "The dimension length is fixed at 12. They agree at length 1, 7, 11, 12, 13, but at length 24,"
    )
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert session.get_inputs()[0].shape == ["batch", 12]
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        session.run(None, {"x": np.zeros((2, 24), np.int64)})
    assert onnxtool.verify(tmp_path / "m.onnx", Text(cut_at(20)))


@pytest.mark.usefixtures("_framework")
def test_a_dimension_beyond_which_the_model_fails_has_bounds(tmp_path):
    positions = node("Slice", ["ids", "zero", "n", "first"], ["p"])
    length = [node("Shape", ["x"], ["n"], start=1, end=2), positions, node("Add", ["x", "p"], ["xx"]),
              node("Gather", ["table", "xx"], ["e"]), MEAN]  # fmt: skip
    ends = [constant(name, np.zeros(size, np.int64)) for name, size in (("zero", 1), ("first", 1), ("ids", 50))]
    report = onnxtool.convert(Text(graph(length, [AXIS, *ends])), tmp_path / "m.onnx")
    assert report
    (message,) = [choice for choice in report.subjects[0].conversion.choices if "length" in choice]
    assert message.startswith("The dimension length is for up to 40.")
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert json.loads(metadata[BOUNDS]) == {"length": [None, 40]}
    again = onnxtool.verify(tmp_path / "m.onnx", Text(None))
    assert again
    assert max(again.subjects[0].parity.sizes[0].compared) == 40
    assert not again.subjects[0].parity.sizes[0].failures


def test_stated_bounds_excuse_no_wrong_answer(tmp_path):
    """Nothing keeps a caller from other sizes: beyond its bounds, a model may fail, and not be wrong."""
    model = cut_at(20)
    helper.set_model_props(model, {BOUNDS: json.dumps({"length": [1, 20]})})
    onnx.save(model, tmp_path / "m.onnx")
    onnx.save(TEXT, tmp_path / "text.onnx")
    assert not onnxtool.verify(tmp_path / "m.onnx", tmp_path / "text.onnx", sandbox=None)


@pytest.mark.usefixtures("_framework")
def test_a_model_that_is_wrong_only_near_the_sources_limit_is_found(tmp_path):
    onnx.save(cut_at(45), tmp_path / "m.onnx")
    report = onnxtool.verify(tmp_path / "m.onnx", Text(TEXT, most=50))
    assert not report
    assert "at length 50, y is off" in report.subjects[0].checks[0].message


@pytest.mark.usefixtures("_framework")
def test_what_takes_too_long_is_left_out_and_said(tmp_path, monkeypatch):
    from onnxtool.validators.parity import sizes

    monkeypatch.setitem(sizes.prove_sizes.__kwdefaults__, "budget_s", 0.0)
    onnx.save(TEXT, tmp_path / "m.onnx")
    report = onnxtool.verify(tmp_path / "m.onnx", Text(TEXT))
    assert report.subjects[0].parity.sizes[0].skipped
    assert "Sizes left out, since they would take too long: length" in " ".join(render(report, "text").split())


@pytest.mark.usefixtures("_framework")
def test_what_the_source_refuses_is_no_failure(tmp_path):
    report = onnxtool.convert(Text(TEXT, most=50), tmp_path / "m.onnx")
    assert report
    (found,) = report.subjects[0].parity.sizes
    assert (found.compared, found.refused) == ([1, 7, 11, 12, 13, 24, 40, 50], [128, 512])


# -- Rows show one length, and the module takes others -------------------------------------------------------------


def test_the_length_of_the_rows_stays_open(tmp_path):
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.dense = torch.nn.Embedding(50, 8), torch.nn.Linear(8, 2)

        def forward(self, tokens, mask):
            weights = mask.unsqueeze(-1)
            return self.dense((self.table(tokens) * weights).sum(1) / weights.sum(1))

    rows = {"tokens": RNG.integers(0, 50, (40, 9)), "mask": np.ones((40, 9), np.float32)}
    net = Net().eval()
    report = onnxtool.convert(net, tmp_path / "m.onnx", data=rows)
    assert report
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert [value.shape for value in session.get_inputs()] == [["batch", "length"]] * 2
    other = {"tokens": RNG.integers(0, 50, (3, 31)), "mask": np.ones((3, 31), np.float32)}
    with torch.no_grad():
        truth = net(*map(torch.from_numpy, other.values())).numpy()
    np.testing.assert_allclose(session.run(None, other)[0], truth, atol=1e-6)


def test_a_module_that_exports_for_one_length_only_says_so(tmp_path):
    import torch

    class Steps(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = torch.nn.GRUCell(4, 4)

        def forward(self, x):
            h = torch.zeros(x.shape[0], 4)
            for place in range(x.shape[1]):
                h = self.cell(x[:, place], h)
            return h

    rows = {"x": RNG.normal(size=(20, 5, 4)).astype(np.float32)}
    report = onnxtool.convert(Steps().eval(), tmp_path / "m.onnx", data=rows)
    assert report
    message = report.subjects[0].conversion.choices[0]
    assert message.startswith("The inputs have the sizes of the rows, though the model takes others. ")
    assert "as a fixed number" in message
    assert onnxruntime.InferenceSession(tmp_path / "m.onnx").get_inputs()[0].shape == ["batch", 5, 4]


def test_a_model_that_needs_a_longer_input_gets_one(tmp_path):
    import torch

    class Sound(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.filters = torch.nn.Conv1d(1, 4, 64, 16)

        def forward(self, x):
            return self.filters(x.unsqueeze(1)).relu().mean(-1)

    report = onnxtool.convert(Sound().eval(), tmp_path / "m.onnx", inputs=["x:float32[batch,samples]"])
    assert report
    (found,) = report.subjects[0].parity.sizes
    assert found.compared == [64, 127, 128, 129, 256, 512]
    assert found.refused == [1, 7, 12, 40]
    assert Path(tmp_path / "m.onnx").exists()


# -- Every framework's kind ------------------------------------------------------------------------------------------


def wrong_where(path, axis, operator, size):
    """A copy of a model whose first output is off by a hundredth where an axis of its first input is so."""
    model = onnx.load(path)
    made, output, name = model.graph, model.graph.output[0].name, model.graph.input[0].name
    for part in made.node:
        part.output[:] = ["right" if value == output else value for value in part.output]
        part.input[:] = ["right" if value == output else value for value in part.input]
    made.initializer.extend(
        [constant("at", np.array([axis])), constant("size", np.array([size])), constant("off", np.float32(0.01))]
    )
    made.node.extend(
        [
            node("Shape", [name], ["shape"]),
            node("Gather", ["shape", "at"], ["there"]),
            node(operator, ["there", "size"], ["is"]),
            node("Cast", ["is"], ["one"], to=TensorProto.FLOAT),
            node("Mul", ["one", "off"], ["more"]),
            node("Add", ["right", "more"], [output]),
        ]
    )
    mutant = path.with_name("mutant.onnx")
    onnx.save(model, mutant)
    return mutant


def torch_source(_):
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.out = torch.nn.Conv1d(4, 8, 3), torch.nn.Linear(8, 2)

        def forward(self, x):
            return self.out(self.mix(x.transpose(1, 2)).relu().mean(-1))

    return Net().eval(), {"inputs": ["x:float32[batch,length,4]"]}


def keras_source(_):
    import keras

    x = keras.Input((None, 4), name="x")
    hidden = keras.layers.GlobalAveragePooling1D()(keras.layers.Conv1D(8, 3, activation="relu")(x))
    return keras.Model(x, keras.layers.Dense(2)(hidden)), {}


def tensorflow_source(folder):
    import tensorflow as tf

    class Net(tf.Module):
        weights = tf.constant(RNG.normal(size=(4, 2)).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None, None, 4], tf.float32, "x")])
        def __call__(self, x):
            return {"y": tf.reduce_mean(tf.nn.relu(tf.matmul(x, self.weights)), 1)}

    net = Net()
    tf.saved_model.save(net, str(folder / "saved"), signatures=net.__call__)
    return folder / "saved", {}


def tflite_source(folder):
    import tensorflow as tf

    tensorflow_source(folder)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    (folder / "m.tflite").write_bytes(converter.convert())
    return folder / "m.tflite", {}


@pytest.mark.parametrize("build", [torch_source, keras_source, tensorflow_source, tflite_source])
def test_a_mutant_of_each_framework_is_found(build, tmp_path):
    source, options = build(tmp_path)
    path = tmp_path / "m.onnx"
    report = onnxtool.convert(source, path, sandbox=None, **options)
    assert report
    (found,) = report.subjects[0].parity.sizes
    assert {7, 40, 128, 512} <= set(found.compared)
    for operator, size in (("Greater", 20), ("Less", 9)):
        assert not onnxtool.verify(wrong_where(path, 1, operator, size), source, sandbox=None, **options)


def test_an_exported_program_is_compared_within_its_own_bounds(tmp_path):
    import torch

    program = torch.export.export(
        torch_source(None)[0],
        (torch.rand(2, 17, 4),),
        dynamic_shapes=({0: torch.export.Dim("batch"), 1: torch.export.Dim("length", min=15, max=200)},),
    )
    report = onnxtool.convert(program, tmp_path / "m.onnx", sandbox=None)
    assert report
    (found,) = report.subjects[0].parity.sizes
    assert (min(found.compared), max(found.compared)) == (15, 200)


# -- Rows of unequal lengths -----------------------------------------------------------------------------------------


@pytest.fixture
def ragged(tmp_path):
    """Tokens of 3 to 9 places, and what the model says of each row by itself."""
    onnx.save(TEXT, tmp_path / "text.onnx")
    rows = [RNG.integers(0, 100, size).tolist() for size in RNG.integers(3, 10, 60)]
    (tmp_path / "rows.json").write_text(json.dumps({"x": rows}))
    return tmp_path, rows


@pytest.mark.usefixtures("_framework")
def test_rows_of_unequal_lengths_all_run(ragged):
    import pandas

    folder, rows = ragged
    pandas.DataFrame({"x": rows}).to_parquet(folder / "rows.parquet")
    lengths = {len(row) for row in rows}
    for data in (folder / "rows.json", folder / "rows.parquet", {"x": rows}):
        for report in (
            onnxtool.verify(folder / "text.onnx", Text(TEXT), data=data),
            onnxtool.convert(Text(TEXT), folder / "m.onnx", data=data),
        ):
            parity = report.subjects[0].parity
            assert report
            assert parity.rows == len(rows)
            assert lengths <= set(parity.sizes[0].compared)
            assert any("Rows of unequal lengths" in note for note in parity.notes)


@pytest.mark.usefixtures("_framework")
def test_one_row_of_another_length_is_enough_to_fail(ragged):
    folder, rows = ragged
    (folder / "rows.json").write_text(json.dumps({"x": [*rows, list(range(21))]}))
    onnx.save(cut_at(20), folder / "m.onnx")
    report = onnxtool.verify(folder / "m.onnx", Text(TEXT), data=folder / "rows.json")
    assert not report
    assert report.subjects[0].parity.outputs[0].mismatched_rows == 1


def test_labels_follow_rows_of_unequal_lengths(ragged):
    """Rows are compared in groups of equal length, and each keeps its own label."""
    folder, rows = ragged
    scored = graph([EMBED, MEAN], [constant("axis", np.array([1, 2]))])
    onnx.save(scored, folder / "scored.onnx")
    labels = [float(TABLE[row].mean()) for row in rows]
    (folder / "rows.json").write_text(json.dumps({"x": rows, "bought": labels}))
    report = onnxtool.verify(
        folder / "scored.onnx", folder / "scored.onnx", data=folder / "rows.json", labels="bought"
    )
    drift = report.subjects[0].drift
    assert drift.rows == len(rows)
    assert drift.metrics[0].source == drift.metrics[0].onnx == pytest.approx(1)


def test_rows_of_unequal_lengths_are_measured_length_by_length(ragged):
    folder, _ = ragged
    (folder / "rows.json").write_text(json.dumps({"x": [[1, 2, 3], [4, 5], [6, 7, 8]]}))
    report = onnxtool.bench(folder / "text.onnx", data=folder / "rows.json", duration=0.05, sandbox=None)
    assert report
    assert sorted(cell.dims["length"] for cell in report.subjects[0].bench.cells) == [2, 3]


@pytest.mark.usefixtures("_framework")
def test_answers_in_the_order_of_the_rows_need_rows_of_one_length(ragged):
    folder, rows = ragged
    answers = {"y": np.zeros((len(rows), 8), np.float32)}
    for call in (
        lambda: onnxtool.verify(folder / "text.onnx", Text(TEXT), data=folder / "rows.json", expected=answers),
        lambda: onnxtool.convert(Text(TEXT), folder / "m.onnx", data=folder / "rows.json", expected=answers),
    ):
        with pytest.raises(onnxtool.errors.UsageError, match=r"unequal lengths.*--expected"):
            call()
