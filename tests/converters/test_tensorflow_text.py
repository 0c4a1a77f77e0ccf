"""Text in TensorFlow graphs: each way of Keras's TextVectorization, and TensorFlow's own operators, on odd texts."""

from __future__ import annotations

import re
import string

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxtool
from onnxtool.converters.framework import ConvertOptions
from onnxtool.converters.keras import FRAMEWORK
from onnxtool.converters.tensorflow import FRAMEWORK as TENSORFLOW
from onnxtool.errors import ConversionError
from onnxtool.models.keras import import_keras
from onnxtool.models.signature import TensorSpec
from onnxtool.models.source import LoadOptions
from onnxtool.models.tensorflow import import_tensorflow

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WORDS = ["red", "green", "blue", "é", "cafÉ", "dont", "don't", "red green"]


def texts():
    """Texts of every kind that could be split, lowered or stripped in another way, then random ones."""
    odd = [
        *(
            "",
            "   ",
            "!!!",
            "- - -",
            "Red, GREEN blue.",
            "Don't dont DON'T",
            "É CAFÉ café\tred\ngreen\vblue\fa\rb",
        ),
        *("red\x85green\u2028blue\u3000red blue", "red\x1cgreen\x1fblue", "x" * 500, "red " * 40, "🎉 Red 🎉!"),
        "".join(map(chr, range(1, 256))),
    ]
    rng = np.random.default_rng(0)
    alphabet = list("ReD gReen blUe!-'\t\n É.,é")
    made = ["".join(rng.choice(alphabet, rng.integers(0, 60))) for _ in range(200)]
    return np.array(odd + made, object)


BATCHES = [slice(0, 0), slice(0, 1), slice(1, 3), slice(3, None), slice(None), slice(4, 5)]


def session_of(model):
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString())


@pytest.fixture(scope="module")
def keras():
    return import_keras()


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((), {"output_sequence_length": 6}),
        ((1,), {}),
        ((), {"standardize": "lower"}),
        ((1,), {"standardize": "strip_punctuation"}),
        ((), {"standardize": None}),
        ((1,), {"split": None}),
        ((), {"output_mode": "multi_hot"}),
        ((1,), {"output_mode": "count", "pad_to_max_tokens": True, "max_tokens": 20}),
        ((), {"output_mode": "tf_idf", "idf_weights": np.linspace(0.1, 1.3, len(WORDS)).tolist()}),
        ((), {"ngrams": 2, "output_sequence_length": 6}),
        ((1,), {"ngrams": (1, 3), "output_mode": "count"}),
    ],
)
def test_a_text_becomes_what_it_is_in_keras(keras, shape, options):
    text = keras.Input(shape, dtype="string", name="text")
    layer = keras.layers.TextVectorization(vocabulary=WORDS, **options)
    source = FRAMEWORK.wrap(keras.Model(text, layer(text)), LoadOptions())
    session = session_of(FRAMEWORK.convert(source, {}, ConvertOptions()).model)
    found = set()
    for batch in BATCHES:
        rows = {"text": texts()[batch].reshape(-1, *shape)}
        expected = source.predict(rows)[source.outputs[0]]
        got = session.run(None, rows)[0]
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
        found |= set(np.unique(got))
    assert len(found) > 1


def standardize(text):
    """As in Keras's tutorial of text classification."""
    tf = import_tensorflow()
    lower = tf.strings.regex_replace(tf.strings.lower(text), "<br />", " ")
    return tf.strings.regex_replace(lower, f"[{re.escape(string.punctuation)}]", "")


def test_the_network_of_the_tutorial(keras, tmp_path):
    layers = keras.layers
    rows = (texts() + "<br />\nthe " + texts()[::-1])[:, None]
    vectorize = layers.TextVectorization(max_tokens=50, standardize=standardize, output_sequence_length=10)
    vectorize.adapt(rows)
    text = keras.Input((1,), dtype="string", name="text")
    words = layers.GlobalAveragePooling1D()(layers.Dropout(0.2)(layers.Embedding(51, 16)(vectorize(text))))
    model = keras.Model(text, layers.Dense(1, activation="sigmoid", name="positive")(words))
    report = onnxtool.convert(model, tmp_path / "m.onnx", data={"text": rows})
    assert report, report.subjects[0].checks
    assert report.subjects[0].conversion.opset == 20
    assert any("opset 20" in choice for choice in report.subjects[0].conversion.choices)
    assert onnxtool.convert(model, tmp_path / "made_up.onnx", target="mlnet")


def test_a_saved_model_takes_text_too(keras, tmp_path):
    text = keras.Input((), dtype="string", name="text")
    layer = keras.layers.TextVectorization(vocabulary=WORDS, output_mode="count")
    model = keras.Model(text, keras.layers.Dense(3)(layer(text)))
    model.export(str(tmp_path / "saved"), verbose=False)
    assert onnxtool.convert(tmp_path / "saved", tmp_path / "m.onnx", data={"text": texts()})


def function(call):
    tf = import_tensorflow()
    spec = TensorSpec("text", "string", ("batch", 2))
    made = tf.function(call, input_signature=[tf.TensorSpec([None, 2], tf.string, name="text")])
    return TENSORFLOW.wrap(made, LoadOptions(inputs=(spec,)))


def strings():
    return import_tensorflow().strings


@pytest.mark.parametrize(
    "call",
    [
        lambda text: strings().upper(text),
        lambda text: strings().regex_replace(text, "ed", "é"),
        lambda text: strings().regex_replace(text, "[a-e!]", "<>"),
        lambda text: strings().regex_replace(text, r"\!", ""),
        lambda text: text == import_tensorflow().constant("red"),
        lambda text: text != text[:, ::-1],
    ],
)
def test_operators_of_text(call):
    source = function(call)
    rows = {"text": np.stack([texts(), np.roll(texts(), 1)], axis=1)}
    session = session_of(TENSORFLOW.convert(source, {}, ConvertOptions()).model)
    np.testing.assert_array_equal(session.run(None, rows)[0], source.predict(rows)[source.outputs[0]])


@pytest.mark.parametrize(
    ("call", "operator"),
    [
        (lambda text: strings().regex_replace(text, "e+", "_"), "StaticRegexReplace"),
        (lambda text: strings().regex_replace(text, "[ab]", "b"), "StaticRegexReplace"),
        (lambda text: strings().regex_replace(text, "[^ab]", ""), "StaticRegexReplace"),
        (lambda text: strings().regex_replace(text, "a", r"\\0"), "StaticRegexReplace"),
        (lambda text: strings().regex_replace(text, "a", "b", replace_global=False), "StaticRegexReplace"),
        (lambda text: strings().split(text[:, 0], "-").to_tensor(), "StringSplitV2"),
        (lambda text: strings().ngrams(text, 2, pad_values=("<", ">")), "StringNGrams"),
        (lambda text: strings().unicode_split(text[:, 0], "UTF-8").to_tensor(), "UnicodeDecode"),
    ],
)
def test_operators_without_a_function_are_refused_by_name(call, operator):
    with pytest.raises(ConversionError, match=f"operator {operator} of .* has no ONNX form"):
        TENSORFLOW.convert(function(call), {}, ConvertOptions())


def test_text_needs_a_later_opset():
    with pytest.raises(ConversionError, match="need opset 20, and the rest of the model is of 13"):
        TENSORFLOW.convert(function(lambda text: strings().upper(text)), {}, ConvertOptions(opset=13))


def test_ragged_outputs_are_refused(keras):
    text = keras.Input((), dtype="string", name="text")
    layer = keras.layers.TextVectorization(vocabulary=WORDS, ragged=True)
    source = FRAMEWORK.wrap(keras.Model(text, layer(text)), LoadOptions())
    with pytest.raises(ConversionError, match="an output is ragged or sparse"):
        FRAMEWORK.convert(source, {}, ConvertOptions())
