"""Resized images, against TensorFlow: to the bit where ONNX has the operators for it."""

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

METHODS = ("bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5", "gaussian", "mitchellcubic")
SIZES = [((12, 12), (9, 7)), ((10, 7), (15, 23)), ((12, 12), (24, 6)), ((37, 41), (4, 3)), ((12, 18), (8, 12))]


def source_of(call, *shape, dtype="float32"):
    tf = import_tensorflow()
    spec = tf.TensorSpec([None, *shape], dtype, name="x")
    return FRAMEWORK.wrap(tf.function(call, autograph=False, input_signature=[spec]), LoadOptions())


def both(source, x):
    """What TensorFlow and ONNX Runtime say."""
    model = FRAMEWORK.convert(source, {}, ConvertOptions()).model
    onnx.checker.check_model(model, full_check=True)
    got = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    expected = source.predict({"x": x})[source.outputs[0]]
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    return expected, got


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_each_method(method, old, new):
    for dtype, antialias in (("float32", False), ("uint8", True)):
        source = source_of(
            lambda x, antialias=antialias: import_tensorflow().image.resize(x, new, method, antialias=antialias),
            *old,
            3,
            dtype=dtype,
        )
        x = np.random.default_rng(0).uniform(0, 255, (3, *old, 3)).astype(dtype)
        expected, got = both(source, x)
        powers = new == (24, 6)
        exact = method == "nearest" or (method == "bilinear" and not antialias and not powers)
        np.testing.assert_allclose(got, expected, rtol=0, atol=0 if exact else 255 * 2**-21)


@pytest.mark.parametrize(
    "operator", ["resize_bilinear", "resize_nearest_neighbor", "resize_bicubic", "resize_area"]
)
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("new", [(9, 7), (24, 6), (1, 1), (12, 12)])
def test_the_ways_of_older_graphs(operator, align_corners, new):
    resize = getattr(import_tensorflow().compat.v1.image, operator)
    source = source_of(lambda x: resize(x, new, align_corners=align_corners), 12, 12, 3)
    x = np.random.default_rng(0).uniform(0, 1, (3, 12, 12, 3)).astype(np.float32)
    np.testing.assert_allclose(*both(source, x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_a_size_that_only_the_run_knows(method, dtype):
    tf = import_tensorflow()
    source = source_of(lambda x: tf.image.resize(x, (9, 7), method), None, None, 3, dtype=dtype)
    onto = source_of(lambda x: tf.image.resize(x, tf.shape(x)[1:3] * 3 // 2, method), None, None, 3, dtype=dtype)
    for size in [(12, 16), (9, 7), (1, 1), (31, 5), (100, 90)]:
        x = np.random.default_rng(0).uniform(0, 255, (3, *size, 3)).astype(dtype)
        for each in (source, onto) if min(size) > 1 else (source,):
            np.testing.assert_array_equal(*both(each, x))


@pytest.mark.parametrize("operator", ["resize_bilinear", "resize_nearest_neighbor"])
def test_a_size_that_only_the_run_knows_in_older_graphs(operator):
    resize = getattr(import_tensorflow().compat.v1.image, operator)
    x = np.random.default_rng(0).uniform(0, 1, (3, 12, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(*both(source_of(lambda x: resize(x, (9, 7)), None, None, 3), x))


@pytest.mark.parametrize(("method", "operator"), [("lanczos3", "ScaleAndTranslate"), ("area", "ResizeArea")])
def test_other_methods_need_the_size(method, operator):
    resize = import_tensorflow().image.resize
    with pytest.raises(ConversionError, match=f"a size that only the run knows by {operator}"):
        FRAMEWORK.convert(source_of(lambda x: resize(x, (9, 7), method), None, None, 3), {}, ConvertOptions())


def test_a_part_of_an_image_moved_and_scaled():
    move = import_tensorflow().raw_ops.ScaleAndTranslate

    def call(x):
        return move(images=x, size=[6, 8], scale=[0.75, 1.25], translation=[1.5, -2.0], kernel_type="keyscubic")

    x = np.random.default_rng(0).uniform(0, 1, (3, 10, 9, 3)).astype(np.float32)
    expected, got = both(source_of(call, 10, 9, 3), x)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
    assert np.abs(got).max() > 0.5
