"""The overhead of `convert` over the converter that it calls, without verification: interleaved in one process."""

import contextlib
import io
import statistics
import time
import warnings

import numpy as np
import pytest

import onnxtool

ROUNDS = 5
LIMIT = 1.15


def _forest():
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(100, random_state=0).fit(*load_digits(return_X_y=True))
    types = [("X", FloatTensorType([None, 64]))]
    return model, lambda: skl2onnx.convert_sklearn(model, initial_types=types, options={"zipmap": False})


def _resnet():
    import torch

    from onnxtool.models.reference.torch import resnet

    model = resnet()
    shapes = {"image": {0: torch.export.Dim("batch")}}
    example = (torch.zeros(2, 3, 32, 32),)
    return model, lambda: torch.onnx.export(model, example, dynamo=True, dynamic_shapes=shapes, verbose=False)


def _mobilenet():
    from onnxtool.models.reference.keras import mobilenet

    model = mobilenet()
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype, "image")]
    function = tf.function(lambda image: model(image, training=False), input_signature=signature)
    return model, lambda: tf2onnx.convert.from_function(function, signature, opset=18)


@pytest.mark.parametrize("make", [_forest, _resnet, _mobilenet], ids=["forest", "resnet", "mobilenet"])
def test_convert_adds_at_most_15_percent(benchmark, make, tmp_path):
    model, bare = make()

    def once(function):
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            began = time.perf_counter()
            function()
            return time.perf_counter() - began

    def ours():
        onnxtool.convert(model, tmp_path / "model.onnx", verify=False)

    def measure():
        once(bare), once(ours)  # imports and first-time registrations are nobody's overhead
        pairs = [(once(bare), once(ours)) for _ in range(ROUNDS)]
        return [mine / theirs for theirs, mine in pairs], [np.median(side) for side in zip(*pairs, strict=True)]

    ratios, (theirs, mine) = benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info |= {"convert / bare": statistics.median(ratios), "bare s": theirs, "convert s": mine}
    assert statistics.median(ratios) <= LIMIT
