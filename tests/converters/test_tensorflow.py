import logging
import os
import subprocess
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxtool
from onnxtool.converters.framework import ConvertOptions
from onnxtool.converters.tensorflow import FRAMEWORK
from onnxtool.errors import ConversionError, DataError, UsageError
from onnxtool.models.reference import tensorflow as reference
from onnxtool.models.rows.domain import Domain
from onnxtool.models.rows.inputs import make_inputs
from onnxtool.models.source import LoadOptions
from onnxtool.models.tensorflow import import_tensorflow


@pytest.fixture(scope="module")
def tf():
    return import_tensorflow()


def wrap(model, **options):
    return FRAMEWORK.wrap(model, LoadOptions(**options))


def convert(source, opset=None):
    model = FRAMEWORK.convert(source, {}, ConvertOptions(opset=opset)).model
    onnx.checker.check_model(model, full_check=True)
    return model


def agree(source, model, domains=None):
    """Run both on 1, 3 and 17 rows, and compare names, dtypes, shapes and values."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert [value.name for value in session.get_inputs()] == [spec.name for spec in source.inputs]
    assert [value.name for value in session.get_outputs()] == list(source.outputs)
    for count in (1, 3, 17):
        rows = make_inputs(source.inputs, count, seed=count, domains=domains)
        expected = source.predict(rows)
        for (name, correct), got in zip(expected.items(), session.run(None, rows), strict=True):
            assert got.dtype == correct.dtype, name
            if correct.dtype.kind == "f":
                np.testing.assert_allclose(got, correct, rtol=1e-4, atol=1e-5, err_msg=name)
            else:
                np.testing.assert_array_equal(got, correct, err_msg=name)


def shapes(model):
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }


@pytest.mark.parametrize("opset", [None, 13])
def test_a_saved_model_with_two_inputs_and_two_outputs(tmp_path, opset):
    [path] = reference.save(tmp_path)
    source = wrap(FRAMEWORK.load(str(path), LoadOptions()))
    model = convert(source, opset)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [opset or 18]
    assert shapes(model) == {
        "image": ["batch", 32, 32, 3],
        "tokens": ["batch", "tokens_dim_1"],
        "length": ["batch"],
        "topics": ["batch", 12],
    }
    agree(source, model, {"tokens": Domain(high=300)})


def test_a_live_function_converts_and_still_runs_after(tf):
    function = reference.captioned().classify
    source = wrap(function)
    agree(source, convert(source), {"tokens": Domain(high=300)})
    agree(source, convert(source), {"tokens": Domain(high=300)})


def test_an_input_may_be_an_output_and_an_output_come_twice(tf):
    spec = tf.TensorSpec([None, 2], tf.float32, "x")

    def run(x):
        y = 2 * x
        return {"x": x, "same": x, "y": y, "twice": y}

    source = wrap(tf.function(run, input_signature=[spec]))
    model = convert(source)
    agree(source, model)
    assert shapes(model) == {name: ["batch", 2] for name in ("x", "same", "twice", "x_1", "y")}


def test_an_input_that_is_not_read_stays(tf):
    specs = [tf.TensorSpec([None, 2], tf.float32, "used"), tf.TensorSpec([None], tf.string, "unused")]
    source = wrap(tf.function(lambda used, unused: used + 1, input_signature=specs))
    model = convert(source)
    agree(source, model)
    assert shapes(model)["unused"] == ["batch"]


def test_a_dynamic_size_that_passes_through_keeps_its_name(tf):
    spec = tf.TensorSpec([None, None, 3], tf.float32, "series")
    source = wrap(
        tf.function(lambda series: {"long": tf.exp(series), "cut": series[:, 1:]}, input_signature=[spec])
    )
    model = convert(source)
    agree(source, model)
    assert shapes(model)["long"] == ["batch", "dim_1", 3]
    assert shapes(model)["cut"] == ["batch", "cut_dim_1", 3]


def test_loops_tables_captured_constants_and_erfc(tf, tmp_path):
    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            words = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([3, 5], tf.int64))
            self.table = tf.lookup.StaticHashTable(words, -1)
            self.captured = tf.constant(np.linspace(0, 1, 400, dtype=np.float32))  # too large to be inlined

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 400], tf.float32, "x"),
                tf.TensorSpec([None, 2], tf.string, "word"),
            ]
        )
        def run(self, x, word):
            total = x
            for _ in tf.range(3):
                total = tf.math.erfc(total) + self.captured
            return {"total": total, "code": self.table.lookup(word)}

    module = Module()
    source = wrap(module.run)
    agree(source, convert(source))
    tf.saved_model.save(module, str(tmp_path / "tables"), signatures=module.run)
    saved = wrap(FRAMEWORK.load(str(tmp_path / "tables"), LoadOptions()))
    agree(saved, convert(saved))
    agree(saved, convert(saved))  # tf2onnx takes tables out of the function it is given


def test_an_operator_without_an_onnx_form_is_named_with_its_place(tf):
    def run(x):
        with tf.name_scope("head"):
            return tf.linalg.inv(x)

    source = wrap(tf.function(run, input_signature=[tf.TensorSpec([None, 2, 2], tf.float32, "x")]))
    with pytest.raises(ConversionError, match=r"operator MatrixInverse of .*head/MatrixInverse has no ONNX form"):
        convert(source)
    # The old operator set lacks what the new one has.
    top = tf.function(lambda x: tf.reverse(x, [1]), input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
    with pytest.raises(ConversionError, match=r"ReverseV2 .*at opset 9"):
        convert(wrap(top), opset=9)
    agree(wrap(top), convert(wrap(top)))


def test_a_handler_that_fails_is_an_error_not_a_broken_model(tf):
    specs = [tf.TensorSpec([None, 3], tf.float32, "x"), tf.TensorSpec([2], tf.int32, "order")]
    source = wrap(tf.function(tf.transpose, input_signature=specs))
    with pytest.raises(ConversionError, match=r"cannot convert .*transpose: perm can't be dynamic in ONNX\.$"):
        convert(source)  # tf2onnx logs the exception, goes on, and returns a model


def test_a_function_that_tf2onnx_cannot_freeze_is_an_error(tf):
    counter = tf.Variable([0.0])
    source = wrap(tf.function(counter.assign_add, input_signature=[tf.TensorSpec([1], tf.float32, "x")]))
    with pytest.raises(ConversionError, match="tf2onnx cannot convert the model: Input 0 of node"):
        convert(source)


def test_an_output_of_unknown_rank_converts(tf):
    specs = [tf.TensorSpec([None, 3], tf.float32, "x"), tf.TensorSpec([None], tf.int32, "axes")]
    source = wrap(tf.function(tf.reduce_sum, input_signature=specs))
    model = FRAMEWORK.convert(source, {}, ConvertOptions()).model
    session = onnxruntime.InferenceSession(model.SerializeToString())
    rows = {"x": np.ones((2, 3), np.float32), "axes": np.array([1], np.int32)}
    np.testing.assert_array_equal(session.run(None, rows)[0], source.predict(rows)["output"])


def test_nothing_global_is_left_behind(tf):
    def state():
        loggers = [logging.getLogger(name) for name in ("tf2onnx", "tensorflow", "absl", "")]
        return (
            [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers],
            list(warnings.filters),
            tf.executing_eagerly(),
            tf.compat.v1.get_default_graph().building_function,
        )

    source = wrap(reference.captioned().classify)
    convert(source)  # the first one imports tf2onnx
    before = state()
    convert(source)
    bad = tf.function(tf.linalg.inv, input_signature=[tf.TensorSpec([None, 2, 2], tf.float32, "x")])
    with pytest.raises(ConversionError):
        convert(wrap(bad))
    assert state() == before


def test_neither_tensorflow_nor_tf2onnx_chatters(tmp_path):
    [path] = reference.save(tmp_path)
    # A process of its own: what native code logs is settled when TensorFlow is first imported, and the machine
    # that runs the tests may have allocated more of it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    command = [sys.executable, "-m", "onnxtool", "convert", str(path), "-o", str(tmp_path / "model.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "devices.cc" not in done.stdout


def test_each_of_several_signatures_converts_by_its_name(tf, tmp_path):
    spec = [tf.TensorSpec([None, 3], tf.float32, "x")]
    module = tf.Module()
    module.double = tf.function(lambda x: {"twice": 2.0 * x}, input_signature=spec)
    module.total = tf.function(lambda x: {"sum": tf.reduce_sum(x, axis=1)}, input_signature=spec)
    tf.saved_model.save(module, tmp_path, signatures={"double": module.double, "total": module.total})
    loaded = FRAMEWORK.load(str(tmp_path), LoadOptions())
    with pytest.raises(
        UsageError, match=r"no signature 'serving_default'.*--signature with one of: double, total"
    ):
        wrap(loaded)
    for name, output in (("double", "twice"), ("total", "sum")):
        source = wrap(loaded, signature=name)
        assert source.outputs == (output,)
        agree(source, convert(source))


def test_outputs_whose_rank_depends_on_the_rows(tf, tmp_path):
    weights = tf.constant([[1.0], [2.0], [3.0]])
    function = tf.function(
        lambda x: {"score": tf.squeeze(x @ weights)}, input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")]
    )
    path = tmp_path / "m.onnx"
    report = onnxtool.convert(function, path)
    assert report, report.subjects[0].checks
    session = onnxruntime.InferenceSession(path)
    for count, shape in ((1, ()), (4, (4,))):
        rows = np.arange(3.0 * count, dtype=np.float32).reshape(count, 3)
        (found,) = session.run(None, {"x": rows})
        assert found.shape == shape
        np.testing.assert_allclose(found, np.squeeze(rows @ [[1.0], [2.0], [3.0]]), rtol=1e-6)


def test_operators_of_onnx_runtime_are_taken(tf, tmp_path):
    function = tf.function(
        lambda x, diagonal: {"y": tf.linalg.set_diag(x, diagonal, k=1)},
        input_signature=[tf.TensorSpec([2, 3, 4], tf.float32, "x"), tf.TensorSpec([2, 3], tf.float32, "diagonal")],
    )
    report = onnxtool.convert(function, tmp_path / "m.onnx")
    assert report, report.subjects[0].checks
    x, diagonal = np.zeros((2, 3, 4), np.float32), np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    (found,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"x": x, "diagonal": diagonal})
    expected = x.copy()
    expected[:, [0, 1, 2], [1, 2, 3]] = diagonal
    np.testing.assert_array_equal(found, expected)


def test_a_first_dimension_that_counts_no_rows_is_compared_whole(tf, tmp_path):
    chosen = tf.constant([True, False, True, True, False])
    function = tf.function(
        lambda x: {"y": tf.where(chosen, x, -x)}, input_signature=[tf.TensorSpec([None], tf.float32, "x")]
    )
    rows = np.arange(1, 6, dtype=np.float32)
    report = onnxtool.convert(function, tmp_path / "m.onnx", data={"x": rows})
    assert report, report.subjects[0].checks
    parity = report.subjects[0].parity
    assert parity.rows == 1
    assert any("all 5 rows ran at once" in note for note in parity.notes)
    wrong = onnx.load(tmp_path / "m.onnx")
    (negated,) = [node for node in wrong.graph.node if node.op_type == "Neg"]
    negated.op_type = "Abs"
    onnx.save(wrong, tmp_path / "wrong.onnx")
    assert not onnxtool.verify(tmp_path / "wrong.onnx", function, data={"x": rows})
    with pytest.raises(DataError, match="fails on these rows"):  # six rows are too many, at once too
        onnxtool.convert(function, tmp_path / "m.onnx", data={"x": np.ones(6, np.float32)})
