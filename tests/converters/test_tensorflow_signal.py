"""The Fourier transform in TensorFlow graphs, against TensorFlow and against NumPy in double precision."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxtool.converters.framework import ConvertOptions
from onnxtool.converters.tensorflow import FRAMEWORK
from onnxtool.errors import ConversionError
from onnxtool.models.source import LoadOptions
from onnxtool.models.tensorflow import import_tensorflow

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def source_of(call, *shape, dtype="float32"):
    tf = import_tensorflow()
    spec = tf.TensorSpec([None, *shape], dtype, name="x")
    return FRAMEWORK.wrap(tf.function(call, autograph=False, input_signature=[spec]), LoadOptions())


def converted(source, x):
    model = FRAMEWORK.convert(source, {}, ConvertOptions()).model
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


@pytest.mark.parametrize(
    ("call", "shape", "x_shape"),
    [
        (lambda tf, x: tf.abs(tf.signal.rfft(x)), (100,), (5, 100)),
        (lambda tf, x: tf.math.real(tf.signal.rfft(x)) - tf.math.imag(tf.signal.rfft(x)), (3, 127), (5, 3, 127)),
        (lambda tf, x: tf.math.imag(tf.signal.rfft(x, [128])), (3, 100), (5, 3, 100)),
        (lambda tf, x: tf.abs(tf.signal.rfft(x, [64])), (100,), (5, 100)),
        (lambda tf, x: tf.abs(tf.signal.rfft(x, [64])), (None,), (5, 70)),
        (lambda tf, x: tf.abs(tf.signal.rfft(x, [64])), (None,), (5, 30)),
        (lambda tf, x: tf.abs(tf.signal.stft(x, 256, 100)), (None,), (2, 900)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_transform_is_tensorflows(call, shape, x_shape, dtype):
    source = source_of(lambda x: call(import_tensorflow(), x), *shape, dtype=dtype)
    x = np.random.default_rng(0).normal(size=x_shape).astype(dtype)
    expected, got = source.predict({"x": x})[source.outputs[0]], converted(source, x)
    assert got.dtype == expected.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("length", [64, 400, 2048])
def test_the_transform_is_exact_where_onnxs_own_is_not(length):
    """ONNX Runtime's DFT errs by 1e-3 at a length of 400."""
    x = np.random.default_rng(0).normal(size=(50, length)).astype(np.float32)
    got = converted(
        source_of(lambda x: import_tensorflow().math.real(import_tensorflow().signal.rfft(x)), length), x
    )
    assert np.abs(got - np.fft.rfft(x.astype(np.float64)).real).max() < 1.5e-4


@pytest.mark.parametrize(
    "call",
    [
        lambda tf, x: tf.signal.rfft(x),
        lambda tf, x: tf.math.angle(tf.signal.rfft(x)),
    ],
)
def test_what_stays_complex_is_refused(call):
    with pytest.raises(ConversionError, match=r"operator RFFT of .* has no ONNX form"):
        FRAMEWORK.convert(source_of(lambda x: call(import_tensorflow(), x), 100), {}, ConvertOptions())
