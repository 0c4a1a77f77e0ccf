"""Models of Keras 2: what tf_keras saved converts and agrees with it, and names nothing that runs unasked."""

import json
import sys
import zipfile

import h5py
import numpy as np
import onnxruntime
import pytest

import onnxtool
from onnxtool.converters.keras import FRAMEWORK
from onnxtool.errors import SourceError, UntrustedError
from onnxtool.models.keras import keras2
from onnxtool.models.source import LoadOptions

pytestmark = pytest.mark.filterwarnings(
    "ignore:You are saving your model as an HDF5 file", "ignore:__array__ implementation:DeprecationWarning"
)


@pytest.fixture(scope="module")
def keras():
    return keras2.import_keras2()


@pytest.fixture(scope="module")
def images(keras):
    """Layers whose saved form Keras 3 does not take, and operators of TensorFlow between layers."""
    layers = keras.layers
    image = keras.Input((8, 8, 3), name="image")
    features = layers.BatchNormalization()(layers.DepthwiseConv2D(3)(image * 0.5))
    features = layers.Conv2DTranspose(4, 3, strides=2, activation="relu")(features)
    pooled = layers.GlobalAveragePooling2D()(features)
    return keras.Model(image, layers.Dense(3, activation="softmax", name="classes")(pooled))


@pytest.fixture(scope="module")
def sequences(keras):
    """Two inputs, of which one is looked up, two recurrent layers, and two outputs."""
    layers = keras.layers
    words, series = keras.Input((6,), dtype="int32", name="words"), keras.Input((6, 3), name="series")
    read = layers.Concatenate()([layers.Embedding(50, 4, mask_zero=True)(words), series])
    hidden = layers.Bidirectional(layers.LSTM(4))(read)
    return keras.Model(
        [words, series], [layers.Dense(2, name="first")(hidden), layers.GRU(3, name="second")(series)]
    )


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(5, 8, 8, 3)).astype(np.float32),
        "words": rng.integers(0, 50, (5, 6), dtype=np.int32),
        "series": rng.normal(size=(5, 6, 3)).astype(np.float32),
    }


def _converted(model, path, rows):
    report = onnxtool.convert(model, path, sandbox=None)
    assert report, report.subjects[0].checks
    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {value.name: rows[value.name] for value in session.get_inputs()})


@pytest.mark.parametrize("suffix", [".h5", ".keras", None])
@pytest.mark.parametrize("name", ["images", "sequences"])
def test_files_and_live_models_convert(request, tmp_path, rows, name, suffix):
    model = request.getfixturevalue(name)
    if suffix:
        model.save(tmp_path / f"m{suffix}")
    found = _converted(str(tmp_path / f"m{suffix}") if suffix else model, tmp_path / "m.onnx", rows)
    expected = model([rows[layer.name] for layer in model._input_layers], training=False)
    for ours, theirs in zip(found, expected if isinstance(expected, list) else [expected], strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_names_and_roles_are_the_models(images):
    source = FRAMEWORK.wrap(images, LoadOptions())
    assert [str(spec) for spec in source.inputs] == ["image:float32[batch,8,8,3]"]
    assert (source.outputs, source.roles) == (("classes",), {"classes": "probabilities"})


def test_a_normalization_gives_rows_of_its_own_range(keras):
    norm = keras.layers.Normalization(mean=[5.0, 50.0], variance=[4.0, 9.0])
    features = keras.Input((2,), name="x")
    source = FRAMEWORK.wrap(keras.Model(features, norm(features)), LoadOptions())
    np.testing.assert_allclose(source.domains()["x"].center.ravel(), [5, 50])


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_layer_of_ones_own_lies_next_to_the_model(keras, tmp_path, monkeypatch, suffix):
    module = f"mylayers_{suffix[1:]}"
    (tmp_path / f"{module}.py").write_text(
        "import tf_keras\n\nclass Scale(tf_keras.layers.Layer):\n    def call(self, x):\n        return x * 3.0\n"
    )
    path = tmp_path / f"m{suffix}"
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        scale = __import__(module).Scale
        features = keras.Input((2,), name="x")
        keras.Model(features, scale()(features)).save(path)
        del sys.modules[module]
    with pytest.raises(UntrustedError, match=r"Pass --trust \S*\.Scale"):
        onnxtool.convert(str(path), tmp_path / "m.onnx", sandbox=None)
    rows = {"x": np.ones((2, 2), np.float32)}
    assert onnxtool.convert(str(path), tmp_path / "m.onnx", trust=[f"{module}.Scale"], sandbox=None)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    np.testing.assert_array_equal(session.run(None, rows)[0], 3 * rows["x"])


def _forged(path, model, change):
    """The model's file with another configuration, in which `change` was made to the second layer."""
    model.save(path)
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            config["config"]["layers"][1].update(change)
            file.attrs["model_config"] = json.dumps(config)
        return
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    config = json.loads(members["config.json"])
    config["config"]["layers"][1].update(change)
    with zipfile.ZipFile(path, "w") as new:
        for name, content in (members | {"config.json": json.dumps(config)}).items():
            new.writestr(name, content)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize(
    "change",
    [
        {"class_name": "TFOpLambda", "config": {"name": "w", "function": "io.write_file"}},
        {"class_name": "TFOpLambda", "config": {"name": "w", "function": "compat.v1.py_func"}},
        {"class_name": "ClassMethod", "config": {"cls_symbol": "io", "method_name": "write_file"}},
        {"class_name": "TensorFlowOpLayer", "config": {"node_def": 'name: "w" op: "WriteFile"', "constants": {}}},
        {"class_name": "Lambda", "config": {}},
        {"class_name": "function", "config": "get_file", "module": "keras.utils"},
        {"class_name": "get_file", "config": {"fname": "x", "origin": "file:///etc/hosts"}, "module": "keras.utils"},
        {"class_name": "system", "config": {}, "module": "os", "registered_name": "system"},
    ],
)  # fmt: skip
def test_a_forged_configuration_calls_nothing(images, tmp_path, suffix, change):
    path = tmp_path / f"m{suffix}"
    _forged(path, images, change)
    with pytest.raises(UntrustedError, match=r"none of it was run|needs os\.system"):
        FRAMEWORK.load(str(path), LoadOptions())


def test_without_tf_keras_the_extra_is_named(images, tmp_path, monkeypatch):
    images.save(tmp_path / "m.h5")
    monkeypatch.setattr("onnxtool.models.keras.has_keras2", lambda: False)
    with pytest.raises(SourceError, match=r"saved by Keras 2\..*pip install 'onnxtool\[keras2\]'"):
        FRAMEWORK.load(str(tmp_path / "m.h5"), LoadOptions())
