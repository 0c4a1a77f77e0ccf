import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxtool.converters.graph.finish import finish, name_dimensions, write
from onnxtool.errors import ConversionError
from onnxtool.models.onnx.artifact import OnnxModel, size_of
from onnxtool.models.signature import TensorSpec

INPUTS = (TensorSpec("x", "float32", ("batch", "time")),)


def model(*, dims=("unk__1", "unk__2"), dtype=TensorProto.FLOAT, output_shape=("unk__1", "unk__2"), weights=None):
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Add", ["same", "zero"], ["y"]),
    ]
    zero = weights if weights is not None else numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, dims)],
        [helper.make_tensor_value_info("y", dtype, output_shape)],
        [zero],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def dims(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_made_up_dimensions_get_the_sources_names():
    proto = model()
    name_dimensions(proto, INPUTS)
    assert dims(proto.graph.input[0]) == dims(proto.graph.output[0]) == ["batch", "time"]


@pytest.mark.parametrize("shape", [(None, 4), ("", 4), ("?", 4), ("s77", 4)])
def test_the_first_dimension_of_an_output_is_the_batch(shape):
    proto = model(output_shape=shape)
    name_dimensions(proto, INPUTS)
    assert dims(proto.graph.output[0]) == ["batch", 4]


def test_a_left_out_shape_is_inferred():
    proto = model(output_shape=None)
    assert not proto.graph.output[0].type.tensor_type.HasField("shape")
    name_dimensions(proto, INPUTS)
    assert len(dims(proto.graph.output[0])) == 2


def test_the_models_own_names_stay():
    proto = model(dims=("rows", "steps"), output_shape=("rows", "steps"))
    name_dimensions(proto, ())
    assert dims(proto.graph.output[0]) == ["rows", "steps"]


def test_metadata_is_kept_and_added(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    proto = model()
    helper.set_model_props(proto, {"theirs": "1"})
    finish(proto, INPUTS, {"onnxtool.source.framework": "numpy 2"})
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    assert properties["theirs"] == "1"
    assert properties["onnxtool.source.framework"] == "numpy 2"
    assert properties["onnxtool.opset"] == "17"
    assert properties["onnxtool.created"] == "1970-01-01T00:00:00+00:00"


def test_an_invalid_model_is_refused():
    proto = model()
    proto.graph.node[1].input[0] = "nowhere"
    with pytest.raises(ConversionError, match="invalid model"):
        finish(proto, INPUTS, {})


def test_weights_above_the_limit_go_into_external_files(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxtool.models.onnx.artifact.INLINE_LIMIT", 1000)
    proto = model(weights=numpy_helper.from_array(np.full(1024, 2.0, np.float32), "zero"))
    write(proto, tmp_path / "big.onnx")
    assert (tmp_path / "big.onnx.data").stat().st_size >= 4096
    read = OnnxModel.read(tmp_path / "big.onnx")
    result = read.predict(read.session(), {"x": np.ones((1, 1024), np.float32)})
    np.testing.assert_array_equal(result["y"], np.full((1, 1024), 3.0))
    assert read.summary().size_bytes > 4096
    assert isinstance(onnx.load(tmp_path / "big.onnx"), onnx.ModelProto)


def test_a_model_replaces_the_weights_of_an_earlier_one(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxtool.models.onnx.artifact.INLINE_LIMIT", 1000)
    for _ in range(2):
        write(model(weights=numpy_helper.from_array(np.ones(1024, np.float32), "zero")), tmp_path / "big.onnx")
    assert (tmp_path / "big.onnx.data").stat().st_size == 4096
    write(model(), tmp_path / "big.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["big.onnx"]


def test_the_size_beyond_the_limit_is_that_of_the_weights(monkeypatch):
    large = model(weights=numpy_helper.from_array(np.ones(1024, np.float32), "zero"))
    whole = size_of(large)
    assert whole == len(large.SerializeToString())
    monkeypatch.setattr("onnxtool.models.onnx.artifact.INLINE_LIMIT", 1000)
    assert 4096 <= size_of(large) < whole
