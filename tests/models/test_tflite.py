"""TensorFlow Lite files: real ones from TensorFlow's converter, and damaged ones."""

import struct
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxtool
from benchmarks.reliability.fuzz import TARGETS, fuzz
from onnxtool.converters.tensorflow import FRAMEWORK
from onnxtool.errors import OnnxtoolError, SourceError, UntrustedError, UsageError
from onnxtool.models.source import LoadOptions
from onnxtool.models.tensorflow import import_tensorflow, quiet, quiet_native
from onnxtool.models.tensorflow.tflite import check, is_tflite, load_tflite
from onnxtool.opening import open_source
from onnxtool.sandbox.limits import Limits

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:tensorflow.lite"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One network in float, in int8, and in int8 whose input and output are int8 too."""
    folder = tmp_path_factory.mktemp("tflite")
    TARGETS["tflite"][0](folder)
    return folder


@pytest.mark.parametrize("name", ["float", "int8"])
def test_it_converts_and_agrees(files, tmp_path, name):
    report = onnxtool.convert(files / f"{name}.tflite", tmp_path / "m.onnx")
    assert report, report.subjects[0].checks
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert [value.name for value in session.get_inputs()] == ["image"]
    assert session.get_inputs()[0].shape == ["batch", 8, 8, 3]


def test_outputs_in_int8_may_be_a_step_off_and_no_scale(files, tmp_path):
    path = tmp_path / "m.onnx"
    source = open_source(files / "whole.tflite", LoadOptions(limits=Limits()))
    report = onnxtool.convert(source, path)
    assert report, report.subjects[0].checks
    [output] = report.subjects[0].parity.outputs
    assert (output.source_dtype, output.onnx_dtype, output.max_absolute, output.max_ulps) == (
        "int8",
        "int8",
        1,
        None,
    )
    assert output.mean_absolute < 0.01
    assert output.tolerance.reason.startswith("derived: the output is quantized")

    model = onnx.load(path)
    scale = [node for node in model.graph.node if node.op_type == "QuantizeLinear"][-1].input[1]
    [tensor] = [tensor for tensor in model.graph.initializer if tensor.name == scale]
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1.02), scale))
    onnx.save(model, path)
    assert not onnxtool.verify(path, source)


def test_signatures_name_inputs_and_outputs(tmp_path):
    tf = import_tensorflow()

    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
        def double(self, x):
            return {"twice": 2.0 * x}

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
        def total(self, x):
            return {"sum": tf.reduce_sum(x, axis=1)}

    module = Two()
    path = tmp_path / "two.tflite"
    tf.saved_model.save(module, tmp_path / "s", signatures={"double": module.double, "total": module.total})
    with quiet(), quiet_native():
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(tmp_path / "s"), signature_keys=["double", "total"]
        )
        path.write_bytes(converter.convert())
    file = load_tflite(path)
    assert set(file.signatures) == {"double", "total"}
    with pytest.raises(UsageError, match="--signature with one of: double, total"):
        FRAMEWORK.wrap(file, LoadOptions())
    first, second = sorted(file.signatures, key=lambda name: file.signatures[name].graph)
    source = FRAMEWORK.wrap(file, LoadOptions(signature=first))
    assert [spec.name for spec in source.inputs] == ["x"]
    assert source.inputs[0].shape == ("batch", 3)
    rows = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    [(name, values)] = source.predict(rows).items()
    expected = {"twice": 2 * rows["x"], "sum": rows["x"].sum(axis=1)}[name]
    np.testing.assert_allclose(values, expected)
    with pytest.raises(SourceError, match="only the first can be converted"):
        FRAMEWORK.wrap(file, LoadOptions(signature=second))


def test_custom_operators_are_refused_before_anything_runs(tmp_path):
    tf = import_tensorflow()

    @tf.function(input_signature=[tf.TensorSpec([2, 2], tf.float32, "x")])
    def determinant(x):
        return tf.linalg.det(x)

    with quiet(), quiet_native():
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [determinant.get_concrete_function()], determinant
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.SELECT_TF_OPS]
        content = converter.convert()
    with pytest.raises(UntrustedError, match="FlexMatrixDeterminant"):
        check(content, Path("m.tflite"))


def test_a_file_cut_short_is_damaged(files, tmp_path):
    content = (files / "float.tflite").read_bytes()
    for length in (8, 20, len(content) // 2, len(content) - 16):
        path = tmp_path / "m.tflite"
        path.write_bytes(content[:length])
        assert is_tflite(path)
        with pytest.raises(SourceError, match="damaged"):
            load_tflite(path)


def test_offsets_that_lie_never_read_out_of_the_file(files):
    content = (files / "float.tflite").read_bytes()
    refused = 0
    for place in range(0, 400, 4):
        for value in (0xFFFFFFFF, 0x7FFFFFFF, len(content)):
            changed = bytearray(content)
            changed[place : place + 4] = struct.pack("<I", value)
            try:
                check(bytes(changed), Path("m.tflite"))
            except OnnxtoolError:
                refused += 1
    assert refused > 20


def test_the_fuzzer_finds_nothing():
    write, read, _ = TARGETS["tflite"]
    assert fuzz(write, read, 200, seed=1)["findings"] == []
