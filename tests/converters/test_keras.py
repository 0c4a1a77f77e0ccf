import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks.coverage.keras_cases import layer_model
from onnxtool.converters.framework import ConvertOptions
from onnxtool.converters.keras import FRAMEWORK
from onnxtool.errors import ConversionError
from onnxtool.models.keras.backend import import_keras
from onnxtool.models.reference import keras as reference
from onnxtool.models.rows.inputs import make_inputs
from onnxtool.models.source import LoadOptions
from onnxtool.models.tensorflow import import_tensorflow

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def keras():
    keras = import_keras()
    keras.utils.set_random_seed(0)
    return keras


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The reference models' files by name."""
    return {path.stem: path for path in reference.save(tmp_path_factory.mktemp("keras"))}


def load(path):
    return FRAMEWORK.wrap(FRAMEWORK.load(str(path), LoadOptions()), LoadOptions())


def round_trip(source, opset=None):
    """Convert, and compare 1, 3 and 17 rows; return the ONNX model's shapes by name."""
    model = FRAMEWORK.convert(source, {}, ConvertOptions(opset=opset)).model
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert [value.name for value in session.get_inputs()] == [spec.name for spec in source.inputs]
    assert [value.name for value in session.get_outputs()] == list(source.outputs)
    counts = (1, 3, 17) if all(spec.batched for spec in source.inputs) else (source.inputs[0].shape[0],)
    for count in counts:
        rows = make_inputs(source.inputs, count, seed=count, domains=source.domains())
        for (name, expected), got in zip(source.predict(rows).items(), session.run(None, rows), strict=True):
            assert got.dtype == expected.dtype, name
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5, err_msg=name)
            else:
                np.testing.assert_array_equal(got, expected, err_msg=name)
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }


@pytest.mark.parametrize("opset", [None, 13])
@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("cnn", {"image": ["batch", 32, 32, 3], "probabilities": ["batch", 10]}),
        ("lstm", {"tokens": ["batch", "dim_1"], "probabilities": ["batch", 4]}),
        ("mobilenet", {"image": ["batch", 96, 96, 3], "predictions": ["batch", 10]}),
    ],
)
def test_the_reference_models_agree(saved, name, shapes, opset):
    source = load(saved[name])
    assert round_trip(source, opset) == shapes


def test_the_reference_models_are_no_toys(saved):
    for name in ("cnn", "mobilenet"):
        layers = load(saved[name]).model.layers
        norms = [layer for layer in layers if type(layer).__name__ == "BatchNormalization"]
        assert norms
        assert all(np.abs(norm.moving_mean.numpy()).max() > 1e-3 for norm in norms)
    source = load(saved["lstm"])
    tokens = np.array([[5, 6, 7, 0, 0], [5, 6, 7, 8, 9]], np.int32)
    padded = source.predict({"tokens": tokens})["probabilities"]
    short = source.predict({"tokens": tokens[:, :3]})["probabilities"]
    np.testing.assert_allclose(padded[0], short[0], rtol=1e-5)  # padding is skipped
    assert not np.allclose(padded[1], short[1])


def test_any_length_of_a_masked_text_agrees(saved):
    source = load(saved["lstm"])
    model = FRAMEWORK.convert(source, {}, ConvertOptions()).model
    session = onnxruntime.InferenceSession(model.SerializeToString())
    rng = np.random.default_rng(0)
    for length in (1, 2, 31):
        tokens = rng.integers(1, 500, size=(4, length)).astype(np.int32)
        tokens[1, length // 2 :] = 0
        tokens[2] = 0
        expected = source.predict({"tokens": tokens})["probabilities"]
        np.testing.assert_allclose(session.run(None, {"tokens": tokens})[0], expected, rtol=1e-4, atol=1e-6)


def build(keras, layer, shape, dtype="float32"):
    inputs = keras.Input(shape, dtype=dtype, name="x")
    return FRAMEWORK.wrap(keras.Model(inputs, layer(inputs)), LoadOptions())


@pytest.mark.parametrize(
    ("shape", "make"),
    [
        ((None, 5), lambda layers: layers.GRU(4)),
        ((None, 5), lambda layers: layers.GRU(4, reset_after=False, return_sequences=True)),
        ((None, 5), lambda layers: layers.Bidirectional(layers.GRU(4, return_sequences=True))),
        ((None, 5), lambda layers: layers.Bidirectional(layers.LSTM(4))),
        ((None, 5), lambda layers: layers.SimpleRNN(4, go_backwards=True)),
        ((8, 8, 4), lambda layers: layers.Conv2D(8, 3, groups=2)),
        ((8, 8, 4), lambda layers: layers.Conv2DTranspose(4, 3, strides=2, padding="same")),
        ((6,), lambda layers: layers.Normalization(mean=np.arange(6.0), variance=np.arange(1.0, 7.0))),
        ((6,), lambda layers: layers.Dense(4, activation="gelu")),
        ((None, 8), lambda layers: layers.LayerNormalization()),
    ],
)
def test_layers_that_tf2onnx_needs_help_or_care_with(keras, shape, make):
    found = round_trip(build(keras, make(keras.layers), shape))
    assert all(dims[0] == "batch" for dims in found.values())
    assert not any(str(dim).startswith("unk_") for dims in found.values() for dim in dims)


@pytest.mark.parametrize(
    ("shape", "make"),
    [
        ((None, 4), lambda layers: layers.Dense(3)),
        ((None, 8, 8, 3), lambda layers: layers.Conv2D(2, 3)),
        ((None, None, 3), lambda layers: layers.LSTM(2)),
    ],
)
def test_steps_of_any_number_are_each_computed(keras, shape, make):
    source = build(keras, keras.layers.TimeDistributed(make(keras.layers)), shape)
    session = onnxruntime.InferenceSession(
        FRAMEWORK.convert(source, {}, ConvertOptions()).model.SerializeToString()
    )
    rng = np.random.default_rng(0)
    for rows, steps in [(1, 5), (2, 7), (9, 1)]:
        x = rng.standard_normal((rows, steps, *(size or 6 for size in shape[1:]))).astype(np.float32)
        eager = np.asarray(source.model(x))
        np.testing.assert_allclose(session.run(None, {"x": x})[0], eager, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(source.predict({"x": x})[source.outputs[0]], eager, rtol=1e-4, atol=1e-6)


def test_keras_still_counts_rows_for_steps(keras):
    """When this fails, Keras has fixed TimeDistributed, and our way of tracing it can go."""
    model = build(keras, keras.layers.TimeDistributed(keras.layers.Dense(3)), (None, 4)).model
    tf = import_tensorflow()
    graph = tf.function(model, input_signature=[tf.TensorSpec([None, None, 4])])
    assert graph(np.ones((2, 7, 4), np.float32)).shape == (2, 2, 3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_bins_end_where_they_do_in_keras(keras, dtype):
    source = build(keras, keras.layers.Discretization(bin_boundaries=[-1.0, 0.1, 5.0]), (1,), dtype)
    session = onnxruntime.InferenceSession(
        FRAMEWORK.convert(source, {}, ConvertOptions()).model.SerializeToString()
    )
    x = np.array([-2, -1, 0, 1, 5, 6], dtype)
    if dtype != "int32":
        edges = np.array([-1.0, 0.1, 5.0], np.float32).astype(dtype)
        x = np.concatenate([x, edges, np.nextafter(edges, 9), np.nextafter(edges, -9), [np.nan]]).astype(dtype)
    x = x[:, None]
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], source.predict({"x": x})[source.outputs[0]])


def test_words_are_looked_up(keras):
    lookup = keras.layers.StringLookup(vocabulary=["a", "b", "c"], output_mode="multi_hot", name="words")
    assert round_trip(build(keras, lookup, (2,), "string")) == {"x": ["batch", 2], "words": ["batch", 4]}


@pytest.mark.parametrize("mode", ["int", "multi_hot"])
def test_whole_numbers_are_looked_up(keras, mode):
    lookup = keras.layers.IntegerLookup(vocabulary=[3, 5, 8], output_mode=mode)
    round_trip(build(keras, lookup, (2,), "int64"))


def test_words_are_found_by_their_number(keras):
    lookup = keras.layers.StringLookup(vocabulary=["a", "b"], invert=True)
    round_trip(build(keras, lookup, (2,), "int64"))


def test_nested_inputs_and_outputs(keras):
    layers = keras.layers
    image, row = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="row")
    seen = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(image))
    shared = layers.Dense(2, name="shared")
    model = keras.Model({"row": row, "image": image}, {"b": [shared(seen), shared(row)], "a": row, "c": seen})
    assert round_trip(FRAMEWORK.wrap(model, LoadOptions())) == {
        "image": ["batch", 8, 8, 3],
        "row": ["batch", 4],
        "a": ["batch", 4],
        "b_0": ["batch", 2],
        "b_1": ["batch", 2],
        "c": ["batch", 4],
    }


def test_a_stateful_layer_starts_from_zero(keras):
    series = keras.Input((3, 2), batch_size=2, name="series")
    model = keras.Model(series, keras.layers.LSTM(4, stateful=True, name="lstm")(series))
    source = FRAMEWORK.wrap(model, LoadOptions())
    source.predict({"series": np.ones((2, 3, 2), np.float32)})
    assert round_trip(source) == {"series": [2, 3, 2], "lstm": [2, 4]}


def test_a_layer_without_an_onnx_form_is_named(keras):
    x = keras.Input((4,), name="x")
    inverse = keras.layers.Dense(4, name="plain")(keras.ops.erfinv(x))
    source = FRAMEWORK.wrap(keras.Model(x, inverse), LoadOptions())
    with pytest.raises(
        ConversionError, match=r"operator Erfinv of .*erfinv.* has no ONNX form in tf2onnx at opset 18"
    ):
        FRAMEWORK.convert(source, {}, ConvertOptions())


def test_a_live_model_belongs_to_keras_alone(keras):
    from onnxtool.converters.tensorflow import FRAMEWORK as TENSORFLOW

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert FRAMEWORK.owns(model)
    assert not TENSORFLOW.owns(model)
    assert not FRAMEWORK.owns(object())


def test_a_saved_model_that_keras_exports_belongs_to_tensorflow(saved, tmp_path):
    from onnxtool.converters.tensorflow import FRAMEWORK as TENSORFLOW

    source = load(saved["cnn"])
    source.model.export(str(tmp_path / "exported"), verbose=False)
    assert TENSORFLOW.recognises(str(tmp_path / "exported"))
    assert not FRAMEWORK.recognises(str(tmp_path / "exported"))
    exported = TENSORFLOW.wrap(TENSORFLOW.load(str(tmp_path / "exported"), LoadOptions()), LoadOptions())
    rows = {"image": np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)}
    expected = source.predict(rows)["probabilities"]
    np.testing.assert_allclose(exported.predict(rows)["output_0"], expected, rtol=1e-5, atol=1e-6)
    model = TENSORFLOW.convert(exported, {}, ConvertOptions()).model
    session = onnxruntime.InferenceSession(model.SerializeToString())
    np.testing.assert_allclose(session.run(["output_0"], rows)[0], expected, rtol=1e-4, atol=1e-5)


def test_hashing_text_is_refused_with_the_reason(keras):
    source = FRAMEWORK.wrap(layer_model("StringLookup/unknown"), LoadOptions())
    with pytest.raises(ConversionError, match=r"hashes text, and no ONNX operator sees.*Use a vocabulary"):
        FRAMEWORK.convert(source, {}, ConvertOptions())
