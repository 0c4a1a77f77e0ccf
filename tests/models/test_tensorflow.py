import shutil

import numpy as np
import pytest

from onnxtool.converters.tensorflow import FRAMEWORK
from onnxtool.errors import DataError, SourceError, UntrustedError, UsageError
from onnxtool.models.reference import tensorflow as reference
from onnxtool.models.safety.saved_model import CHECKPOINT, FORBIDDEN
from onnxtool.models.safety.tensorflow_operators import OPERATORS
from onnxtool.models.signature import TensorSpec
from onnxtool.models.source import LoadOptions
from onnxtool.models.tensorflow import import_tensorflow


@pytest.fixture(scope="module")
def tf():
    return import_tensorflow()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The reference SavedModel."""
    [path] = reference.save(tmp_path_factory.mktemp("tensorflow"))
    return path


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(3, 32, 32, 3)).astype(np.float32),
        "tokens": rng.integers(0, 300, size=(3, 7)).astype(np.int32),
    }


def load(path, **options):
    options = LoadOptions(**options)
    return FRAMEWORK.wrap(FRAMEWORK.load(str(path), options), options)


def wrap(model, **options):
    return FRAMEWORK.wrap(model, LoadOptions(**options))


def module_of(tf, function, *specs):
    """A module whose only signature is a function."""
    module = tf.Module()
    module.run = tf.function(function, input_signature=specs)
    return module


def save(tf, module, path, **signatures):
    tf.saved_model.save(module, str(path), signatures=signatures or module.run)
    return path


def test_a_saved_model_says_what_the_live_one_says(saved, rows):
    assert FRAMEWORK.recognises(str(saved))
    source = load(saved)
    assert [str(spec) for spec in source.inputs] == [
        "image:float32[batch,32,32,3]",
        "tokens:int32[batch,tokens_dim_1]",
    ]
    assert source.outputs == ("length", "topics")
    assert source.kind == "SavedModel serving_default"
    live = reference.captioned().classify(**rows)
    found = source.predict(rows)
    np.testing.assert_array_equal(found["length"], live["length"].numpy())
    np.testing.assert_allclose(found["topics"], live["topics"].numpy(), rtol=1e-6)
    assert found["length"].dtype == np.int32


def test_other_folders_are_not_recognised(tmp_path, saved):
    assert not FRAMEWORK.recognises(str(tmp_path))
    assert not FRAMEWORK.recognises(str(saved / "saved_model.pb"))
    assert not FRAMEWORK.recognises(str(tmp_path / "missing"))


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_graph_cut_short_is_refused(saved, tmp_path, keep):
    folder = tmp_path / "cut"
    shutil.copytree(saved, folder)
    graph = folder / "saved_model.pb"
    content = graph.read_bytes()
    graph.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(SourceError, match=r"is cut short: its saved_model\.pb cannot be parsed"):
        load(folder)


def test_missing_weights_are_named(saved, tmp_path):
    folder = tmp_path / "weightless"
    shutil.copytree(saved, folder)
    shutil.rmtree(folder / "variables")
    with pytest.raises(SourceError, match="cannot be loaded by TensorFlow"):
        load(folder)


def test_the_signature_is_chosen_by_name(tf, tmp_path):
    module = tf.Module()
    module.double = tf.function(
        lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")]
    )
    module.square = tf.function(
        lambda x: {"y": x * x}, input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")]
    )
    path = save(tf, module, tmp_path / "two", serving_default=module.double, other=module.square)
    x = np.full((1, 2), 3, np.float32)
    assert load(path).predict({"x": x})["y"][0, 0] == 6
    assert load(path, signature="other").predict({"x": x})["y"][0, 0] == 9
    with pytest.raises(
        UsageError, match=r"no signature 'third'\. Pass --signature with one of: other, serving_default"
    ):
        load(path, signature="third")


def test_operators_that_reach_the_system_are_refused_and_do_not_run(tf, tmp_path):
    ran = tmp_path / "ran"

    def touch(x):
        ran.touch()
        return x

    written = tmp_path / "written"
    functions = {
        "EagerPyFunc": lambda x: {"y": tf.py_function(touch, [x], tf.float32)},
        "ReadFile": lambda x: {"y": tf.strings.length(tf.io.read_file("/etc/hostname")), "x": x},
        "WriteFile": lambda x: (tf.io.write_file(str(written), "x"), {"y": x})[1],
    }
    for operator, function in functions.items():
        module = module_of(tf, function, tf.TensorSpec([None], tf.float32, "x"))
        path = save(tf, module, tmp_path / operator)
        with pytest.raises(UntrustedError, match=f"holds the operator {operator} .*It was not loaded"):
            load(path)
    assert not ran.exists()
    assert not written.exists()


def test_weights_are_not_written_or_read_by_what_runs(tf, tmp_path):
    """Every SavedModel holds SaveV2 and RestoreV2, in functions that nobody calls; not so these."""
    functions = {
        "SaveV2": lambda x: (tf.raw_ops.SaveV2(
            prefix=str(tmp_path / "written"), tensor_names=["x"], shape_and_slices=[""], tensors=[x]), {"y": x})[1],
        "RestoreV2": lambda x: {"y": tf.raw_ops.RestoreV2(
            prefix="/etc/secret", tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32])[0]},
    }  # fmt: skip
    for operator, function in functions.items():
        path = save(tf, module_of(tf, function, tf.TensorSpec([None], tf.float32, "x")), tmp_path / operator)
        with pytest.raises(UntrustedError, match=f"holds the operator {operator} .*reads or writes weights"):
            load(path)
    assert not list(tmp_path.glob("written*"))


def _with_table(tf, tmp_path):
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("a\nb\n")
    lookup = tf.lookup
    module = tf.Module()
    module.table = lookup.StaticHashTable(
        lookup.TextFileInitializer(
            str(vocabulary), tf.string, lookup.TextFileIndex.WHOLE_LINE, tf.int64, lookup.TextFileIndex.LINE_NUMBER
        ),
        -1,
    )
    module.find = tf.function(
        lambda x: {"y": module.table.lookup(x)}, input_signature=[tf.TensorSpec([None], tf.string, "x")]
    )
    return save(tf, module, tmp_path / "table", serving_default=module.find)


def _edit(path, change):
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    content = SavedModel()
    content.ParseFromString((path / "saved_model.pb").read_bytes())
    change(content.meta_graphs[0])
    (path / "saved_model.pb").write_bytes(content.SerializeToString())


def test_a_table_is_filled_from_an_asset_alone(tf, tmp_path):
    path = _with_table(tf, tmp_path)
    assert load(path).predict({"x": np.array(["b", "?"], object)})["y"].tolist() == [1, -1]

    def captured_constant(graph):
        """The initializer's captured asset becomes a constant that names another file."""
        for name, function in graph.object_graph_def.concrete_functions.items():
            if "initializer" in name:
                for place in function.bound_inputs:
                    node = graph.object_graph_def.nodes[place]
                    if node.WhichOneof("kind") == "asset":
                        node.constant.operation = "Const"

    _edit(path, captured_constant)
    with pytest.raises(UntrustedError, match="reads a file that is none of the model's assets"):
        load(path)


@pytest.mark.parametrize("name", ["../../../../etc/passwd", "/etc/passwd"])
def test_assets_lie_inside(tf, tmp_path, name):
    path = _with_table(tf, tmp_path)
    _edit(path, lambda graph: setattr(graph.asset_file_def[0], "filename", name))
    with pytest.raises(SourceError, match="lies outside of it"):
        load(path)


def test_live_functions_and_modules_are_models(tf, rows):
    module = reference.captioned()
    for model in (module.classify, module.classify.get_concrete_function()):
        assert FRAMEWORK.owns(model)
        np.testing.assert_array_equal(
            wrap(model).predict(rows)["length"], np.count_nonzero(rows["tokens"], axis=1)
        )
    callable_module = type(
        "Callable", (tf.Module,), {"__call__": tf.function(lambda _, x: x + 1, autograph=False)}
    )()
    assert FRAMEWORK.owns(callable_module)
    with pytest.raises(SourceError, match=r"has no input_signature\. Pass --input"):
        wrap(callable_module)
    source = wrap(callable_module, inputs=(TensorSpec.parse("x:float32[batch,2]"),))
    assert source.predict({"x": np.zeros((4, 2), np.float32)})["output"].tolist() == [[1, 1]] * 4
    with pytest.raises(SourceError, match="Module has no signature"):
        wrap(module)


def test_other_objects_are_no_models():
    for thing in (None, 3, np.zeros(3), lambda x: x, dict):
        assert not FRAMEWORK.owns(thing)


def test_nested_outputs_have_names_of_their_own(tf):
    spec = tf.TensorSpec([None, 2], tf.float32, "x")
    nested = tf.function(lambda x: {"x": x, "b": (x + 1, x + 2), "a": {"c": x}}, input_signature=[spec])
    source = wrap(nested)
    assert source.outputs == ("a_c", "b_0", "b_1", "x_1")  # x is an input's name
    found = source.predict({"x": np.zeros((1, 2), np.float32)})
    assert {name: value[0, 0] for name, value in found.items()} == {"a_c": 0, "b_0": 1, "b_1": 2, "x_1": 0}
    pair = tf.function(lambda x: [x, x + 1], input_signature=[spec])
    assert wrap(pair).outputs == ("output_0", "output_1")


def test_text_goes_in_and_comes_out_as_text(tf):
    shout = tf.function(tf.strings.upper, input_signature=[tf.TensorSpec([None], tf.string, "word")])
    found = wrap(shout).predict({"word": np.array(["a", "bé"], dtype=object)})["output"]
    assert found.dtype == object
    assert found.tolist() == ["A", "Bé"]


def test_a_function_that_cannot_be_traced_says_why(tf):
    wrong = tf.function(lambda x: x @ tf.ones((3, 3)), input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    with pytest.raises(
        SourceError, match="cannot be traced: ValueError: Dimensions must be equal, but are 2 and 3"
    ):
        wrap(wrong)


def test_an_input_of_unknown_rank_must_be_given(tf):
    double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec(None, tf.float32, "x")])
    with pytest.raises(SourceError, match=r"no known number of dimensions\. Pass --input x:float32\[DIMS\]"):
        wrap(double)
    given = TensorSpec.parse("x:float32[batch,3]")
    assert wrap(double, inputs=(given,)).inputs == (given,)


def test_what_cannot_be_fed_or_compared_is_refused(tf):
    wave = tf.function(lambda x: x, input_signature=[tf.TensorSpec([None], tf.complex64, "x")])
    with pytest.raises(SourceError, match="has the dtype complex64, which cannot be fed"):
        wrap(wave)
    split = tf.function(tf.strings.split, input_signature=[tf.TensorSpec([None], tf.string, "x")])
    with pytest.raises(SourceError, match="RaggedTensor: only dense tensors"):
        wrap(split).predict({"x": np.array(["a b", "c"], dtype=object)})
    ragged = tf.function(lambda x: x + 1, input_signature=[tf.RaggedTensorSpec([None, None], tf.float32)])
    with pytest.raises(SourceError, match="Input 'input_0' is a RaggedTensor"):
        wrap(ragged)
    picky = tf.function(
        lambda x: tf.ensure_shape(x, [2]), input_signature=[tf.TensorSpec([None], tf.float32, "x")]
    )
    with pytest.raises(DataError, match="fails on these rows"):
        wrap(picky).predict({"x": np.zeros(3, np.float32)})


# -- Operators that are not on the list -----------------------------------------------------------------------


def reaching(tf, marker, folder):
    """Name to a function that reaches a file through an operator that no deny list had."""
    raw = tf.raw_ops

    def prints(x):
        with tf.control_dependencies([raw.PrintV2(input=tf.constant("x"), output_stream=f"file://{marker}")]):
            return tf.identity(x)

    def maps(x):
        text = raw.ImmutableConst(dtype=tf.uint8, shape=[4], memory_region_name=str(folder / "secret"))
        return x + tf.cast(text, tf.float32)[None]

    def debugs(x):
        count = raw.DebugNanCount(input=x, tensor_name="t:0", debug_urls=[f"file://{marker}"])
        return x + tf.cast(count, tf.float32)

    return {"PrintV2": prints, "ImmutableConst": maps, "DebugNanCount": debugs}


@pytest.mark.parametrize("operator", ["PrintV2", "ImmutableConst", "DebugNanCount"])
def test_an_operator_that_is_not_known_to_compute_is_refused(tf, tmp_path, operator):
    marker = tmp_path / "marker"
    function = reaching(tf, marker, tmp_path)[operator]
    module = module_of(tf, function, tf.TensorSpec([None, 4], tf.float32))
    path = save(tf, module, tmp_path / "model")
    marker.unlink(missing_ok=True)
    with pytest.raises(UntrustedError, match=operator):
        load(path)
    assert not marker.exists()


def test_a_graph_that_is_text_is_refused(tf, tmp_path):
    """DatasetFromGraph runs what it is given, in which no operator can be seen."""
    marker = tmp_path / "marker"

    def write(text):
        with tf.control_dependencies([tf.raw_ops.WriteFile(filename=str(marker), contents=text)]):
            return tf.identity(text)

    made = tf.data.Dataset.from_tensors(b"x").map(write)
    graph = tf.raw_ops.DatasetToGraphV2(input_dataset=made._variant_tensor, external_state_policy=1).numpy()

    def run(x):
        dataset = tf.raw_ops.DatasetFromGraph(graph_def=graph)
        text = tf.raw_ops.DatasetToSingleElement(dataset=dataset, output_types=[tf.string], output_shapes=[[]])[0]
        return x + tf.cast(tf.strings.length(text), tf.float32)

    path = save(tf, module_of(tf, run, tf.TensorSpec([None, 4], tf.float32)), tmp_path / "model")
    marker.unlink(missing_ok=True)
    with pytest.raises(UntrustedError, match=r"DatasetFromGraph|DatasetToSingleElement|WriteFile"):
        load(path)
    assert not marker.exists()


def test_every_operator_that_tf2onnx_converts_may_run(tf):
    import tf2onnx.tfonnx  # noqa: F401 - it registers its handlers
    from tf2onnx.handler import tf_op

    handled = {name for versions in tf_op.get_opsets().values() for handlers in versions for name in handlers}
    assert len(handled) > 300
    assert {name for name in handled if not name.startswith("TFL_")} - OPERATORS == set()
    assert OPERATORS & (FORBIDDEN | CHECKPOINT | {"ImmutableConst", "DatasetFromGraph", "DebugNanCount"}) == set()
