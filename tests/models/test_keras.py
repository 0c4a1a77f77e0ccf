import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from onnxtool.converters.keras import FRAMEWORK
from onnxtool.errors import DataError, SourceError, UntrustedError, UsageError
from onnxtool.models.keras.backend import import_keras
from onnxtool.models.signature import TensorSpec
from onnxtool.models.source import LoadOptions

# TensorFlow's arrays do not know NumPy 2's `copy`: every saving of a Keras model says so.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CUSTOM = """
import keras

class Doubling(keras.layers.Layer):
    def call(self, x):
        return 2 * x

def squared(x):
    return keras.ops.square(x)
"""


@pytest.fixture(scope="module")
def keras():
    return import_keras()


@pytest.fixture(scope="module")
def small(keras):
    """A classifier of four features."""
    features = keras.Input((4,), name="features")
    return keras.Model(features, keras.layers.Dense(3, activation="softmax", name="classes")(features))


@pytest.fixture(scope="module")
def saved(small, tmp_path_factory):
    """The classifier in both formats, by suffix."""
    folder = tmp_path_factory.mktemp("keras")
    paths = {suffix: folder / f"small{suffix}" for suffix in (".keras", ".h5")}
    for path in paths.values():
        small.save(path)
    return paths


@pytest.fixture
def custom(keras, tmp_path, monkeypatch):
    """A model of a layer and a function of a module `mine`, saved; `mine` is not imported."""
    (tmp_path / "mine.py").write_text(CUSTOM)
    monkeypatch.syspath_prepend(tmp_path)
    import mine

    features = keras.Input((4,), name="features")
    doubled = mine.Doubling()(features)
    outputs = keras.layers.Dense(2, activation=mine.squared, name="out")(doubled)
    for suffix in (".keras", ".h5"):
        keras.Model(features, outputs).save(tmp_path / f"custom{suffix}")
    monkeypatch.delitem(sys.modules, "mine")
    return tmp_path


def load(path, **options):
    options = LoadOptions(**options)
    return FRAMEWORK.wrap(FRAMEWORK.load(str(path), options), options)


def wrap(model, **options):
    return FRAMEWORK.wrap(model, LoadOptions(**options))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_is_recognised_by_content_and_says_what_the_live_model_says(saved, small, suffix, tmp_path):
    path = tmp_path / "of-no-known-suffix"
    path.write_bytes(saved[suffix].read_bytes())
    assert FRAMEWORK.recognises(str(path))
    source = load(path)
    assert source.inputs == (TensorSpec("features", "float32", ("batch", 4)),)
    assert source.outputs == ("classes",)
    assert source.roles == {"classes": "probabilities"}
    rows = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(source.predict({"features": rows})["classes"], small(rows).numpy())


def test_other_files_are_not_recognised(tmp_path):
    other_zip = tmp_path / "model.keras"
    with zipfile.ZipFile(other_zip, "w") as archive:
        archive.writestr("readme.txt", "no model")
    text = tmp_path / "model.h5"
    text.write_text("no HDF5")
    empty = tmp_path / "empty.keras"
    empty.touch()
    for path in (other_zip, text, empty, tmp_path, tmp_path / "missing.keras"):
        assert not FRAMEWORK.recognises(str(path))


@pytest.mark.parametrize(("suffix", "words"), [(".keras", "damaged .keras file"), (".h5", "damaged HDF5 file")])
@pytest.mark.parametrize("keep", [0.1, 0.9])
def test_a_file_cut_short_is_recognised_and_refused(saved, tmp_path, suffix, words, keep):
    path = tmp_path / f"cut{suffix}"
    content = saved[suffix].read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    assert FRAMEWORK.recognises(str(path))
    with pytest.raises(SourceError, match=words):
        load(path)


def test_weights_without_a_model_are_refused(small, tmp_path):
    small.save_weights(tmp_path / "only.weights.h5")
    with pytest.raises(SourceError, match="weights or data, but no model"):
        load(tmp_path / "only.weights.h5")


@pytest.mark.parametrize(
    "config", ["[]", "no JSON", '{"class_name": "Functional", "module": "keras", "config": {}}']
)
def test_an_archive_with_a_senseless_configuration_is_refused(saved, tmp_path, config):
    path = tmp_path / "odd.keras"
    with zipfile.ZipFile(saved[".keras"]) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, config if name == "config.json" else old.read(name))
    with pytest.raises(SourceError, match=r"no configuration|cannot be loaded by Keras"):
        load(path)


def test_a_file_of_keras_2_loads(saved, small, tmp_path):
    import h5py

    layers = [
        {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 4], "name": "input_1"}},
        {
            "class_name": "Dense",
            "config": {
                "name": "dense", "trainable": True, "dtype": "float32", "units": 3, "activation": "softmax",
                "use_bias": True, "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
                "bias_initializer": {"class_name": "Zeros", "config": {}}, "kernel_regularizer": None,
            },
        },
    ]  # fmt: skip
    path = tmp_path / "keras2.h5"
    path.write_bytes(saved[".h5"].read_bytes())
    with h5py.File(path, "r+") as file:
        config = {"class_name": "Sequential", "config": {"name": "sequential", "layers": layers}}
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.4.0"
    source = load(path)
    assert [str(spec) for spec in source.inputs] == ["input_1:float32[batch,4]"]
    rows = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(source.predict({"input_1": rows})["dense"], small(rows).numpy())


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_is_refused_and_does_not_run(keras, tmp_path, suffix):
    features = keras.Input((4,))
    ran = tmp_path / "ran"
    harmful = keras.layers.Lambda(lambda x, ran=str(ran): (open(ran, "w").close(), x)[1])  # noqa: PTH123
    keras.Model(features, harmful(features)).save(tmp_path / f"lambda{suffix}")
    ran.unlink()  # building the model ran it once
    with pytest.raises(UntrustedError, match=r"holds a Lambda, which is Python bytecode; none of it was run"):
        load(tmp_path / f"lambda{suffix}", trust=("keras.layers.Lambda",))
    assert not ran.exists()


@pytest.mark.parametrize(
    "part",
    [
        {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
        {"module": "os", "class_name": "system", "config": {}, "registered_name": "system"},
        {
            "module": "os",
            "class_name": "__typespec__",
            "spec_name": "system",
            "config": [],
            "registered_name": None,
        },
    ],
)
def test_a_forged_configuration_imports_nothing(saved, tmp_path, part):
    path = tmp_path / "forged.keras"
    with zipfile.ZipFile(saved[".keras"]) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                config["config"]["layers"][1]["config"]["activation"] = part
                content = json.dumps(config).encode()
            new.writestr(name, content)
    with pytest.raises(UntrustedError, match=r"needs os\."):
        load(path)


def test_classes_of_other_packages_need_trust(custom):
    with pytest.raises(UntrustedError, match=r"needs mine\.Doubling.*Pass --trust mine\.Doubling"):
        load(custom / "custom.keras")
    assert "mine" not in sys.modules
    with pytest.raises(UntrustedError, match=r"needs package\.squared"):
        load(custom / "custom.keras", trust=("mine.Doubling",))
    source = load(custom / "custom.keras", trust=("mine.Doubling", "mine.squared"))
    rows = {"features": np.ones((2, 4), np.float32)}
    legacy = load(custom / "custom.h5", trust=("mine.Doubling", "mine.squared"))
    np.testing.assert_array_equal(source.predict(rows)["out"], legacy.predict(rows)["out"])
    with pytest.raises(SourceError, match="Unknown layer: 'Doubling'"):
        load(custom / "custom.h5", trust=("mine.squared",))
    with pytest.raises(SourceError, match=r"--trust mine\.Doubling: it cannot be imported"):
        (custom / "mine.py").write_text("")
        sys.modules.pop("mine")
        load(custom / "custom.keras", trust=("mine.Doubling", "mine.squared"))


def test_inputs_have_the_models_own_names_and_dimensions(keras):
    image = keras.Input((None, None, 3), name="image", dtype="uint8")
    fixed = keras.Input((4,), batch_size=2, name="fixed")
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    source = wrap(keras.Model({"image": image, "fixed": fixed}, [pooled, fixed]))
    assert [str(spec) for spec in source.inputs] == [
        "fixed:float32[2,4]",
        "image:uint8[batch,image_dim_1,image_dim_2,3]",
    ]
    single = keras.Input((None, 5), name="series")
    assert str(wrap(keras.Model(single, single)).inputs[0]) == "series:float32[batch,dim_1,5]"


def test_given_inputs_fix_a_dimension_or_are_refused(keras):
    series = keras.Input((None, 5), name="series")
    model = keras.Model(series, keras.layers.GlobalMaxPooling1D()(series))
    fixed = TensorSpec.parse("series:float32[batch,8,5]")
    assert wrap(model, inputs=(fixed,)).inputs == (fixed,)
    with pytest.raises(UsageError, match=r"no such input. It has series:float32\[batch,dim_1,5\]"):
        wrap(model, inputs=(TensorSpec.parse("other:float32[batch,8,5]"),))
    with pytest.raises(UsageError, match="does not fit the model's own input"):
        wrap(model, inputs=(TensorSpec.parse("series:int32[batch,8,5]"),))


def test_outputs_keep_their_keys_and_never_share_a_name(keras):
    layers = keras.layers
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = layers.Dense(2, name="shared")
    assert wrap(keras.Model([a, b], {"z": shared(a), "y": [shared(b), a]})).outputs == ("y_0", "y_1", "z")
    assert wrap(keras.Model([a, b], [shared(a), shared(b), a])).outputs == ("shared", "shared_1", "a_1")
    series = keras.Input((3, 4), name="series")
    states = layers.LSTM(2, return_state=True, name="lstm")(series)
    assert wrap(keras.Model(series, states)).outputs == ("lstm", "lstm_1", "lstm_2")


def test_a_sequential_built_by_a_call_takes_any_number_of_rows(keras):
    model = keras.Sequential([keras.layers.Dense(3, name="last")])
    model(np.zeros((2, 4), np.float32))
    source = wrap(model)
    assert source.inputs[0].shape == ("batch", 4)
    assert source.predict({source.inputs[0].name: np.zeros((5, 4), np.float32)})["last"].shape == (5, 3)


def test_a_model_without_inputs_takes_them_from_the_user_or_from_data(keras):
    model = keras.Sequential([keras.layers.Dense(3)])
    with pytest.raises(UsageError, match=r"Sequential does not define its inputs\. Pass --input"):
        wrap(model)
    source = wrap(model, inputs=(TensorSpec.parse("row:float32[batch,4]"),))
    assert source.outputs == ("output",)
    assert source.predict({"row": np.ones((3, 4), np.float32)})["output"].shape == (3, 3)

    class Named(keras.Model):
        def call(self, left, right):
            return {"sum": left + right}

    class Keyed(keras.Model):
        def call(self, inputs):
            return inputs["left"] + inputs["right"], inputs["left"]

    rows = {"left": np.ones((2, 3)), "right": np.ones((2, 3))}
    named, keyed = wrap(Named(), data=rows), wrap(Keyed(), data=rows)
    assert [str(spec) for spec in named.inputs] == ["left:float32[batch,3]", "right:float32[batch,3]"]
    assert named.outputs == ("sum",)
    assert keyed.outputs == ("output_0", "output_1")
    np.testing.assert_array_equal(keyed.predict(rows)["output_0"], named.predict(rows)["sum"])


def test_a_stateful_layer_starts_anew_for_each_prediction(keras):
    series = keras.Input((3, 2), batch_size=2, name="series")
    source = wrap(keras.Model(series, keras.layers.LSTM(4, stateful=True, name="lstm")(series)))
    rows = {"series": np.ones((2, 3, 2), np.float32)}
    np.testing.assert_array_equal(source.predict(rows)["lstm"], source.predict(rows)["lstm"])
    assert "lstm: stateful" in source.notes[0]


def test_domains_come_from_the_layers_that_read_an_input(keras):
    layers = keras.layers
    tokens = keras.Input((3,), dtype="int32", name="tokens")
    word = keras.Input((1,), dtype="string", name="word")
    row = keras.Input((2,), name="row")
    inner = keras.Sequential([keras.Input((3,), dtype="int32"), layers.Embedding(77, 4), layers.Flatten()])
    normal = layers.Normalization(mean=[10.0, 20.0], variance=[4.0, 9.0])
    model = keras.Model(
        [tokens, word, row], [inner(tokens), layers.StringLookup(vocabulary=["x"])(word), normal(row)]
    )
    domains = wrap(model).domains()
    assert domains["tokens"].high == 77
    assert domains["word"].choices == ("[UNK]", "x")
    np.testing.assert_allclose(domains["row"].center, [10, 20])
    np.testing.assert_allclose(domains["row"].spread, [2, 3])


def test_rows_that_the_model_cannot_take_are_the_datas_fault(keras):
    tokens = keras.Input((3,), dtype="int32", name="tokens")
    source = wrap(keras.Model(tokens, keras.layers.Embedding(5, 2)(tokens)))
    with pytest.raises(DataError, match=r"fails on these rows: .*99 is not in \[0, 5\)"):
        source.predict({"tokens": np.full((1, 3), 99, np.int32)})


def test_another_backend_is_refused_before_anything_is_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(UsageError, match=r"Keras runs on jax here.*KERAS_BACKEND=tensorflow"):
        import_keras()
    assert "keras" not in sys.modules


def test_loading_and_converting_prints_nothing(saved):
    code = (
        "import sys; from onnxtool.converters.framework import ConvertOptions\n"
        "from onnxtool.converters.keras import FRAMEWORK; from onnxtool.models.source import LoadOptions\n"
        "import os; os.environ.pop('KERAS_BACKEND', None)\n"
        "source = FRAMEWORK.wrap(FRAMEWORK.load(sys.argv[1], LoadOptions()), LoadOptions())\n"
        "FRAMEWORK.convert(source, {}, ConvertOptions())\n"
        "assert 'KERAS_BACKEND' not in os.environ"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code, str(saved[".keras"])],
        capture_output=True, text=True, check=False, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
