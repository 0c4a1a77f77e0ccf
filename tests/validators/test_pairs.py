"""Any pair of models, over files of any length."""

import subprocess
import sys

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16
from sklearn.linear_model import LogisticRegression

import onnxtool
from onnxtool.errors import DataError, UsageError
from onnxtool.models.rows import stream

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3000, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


def network(path, change=1.0):
    rng = np.random.default_rng(1)
    sizes = [(64, 128), (128, 10)]
    weights = [rng.normal(size=size).astype(np.float32) / size[0] ** 0.5 for size in sizes]
    weights[0][:, 3] *= change
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "a"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "b"], ["s"]),
            helper.make_node("Softmax", ["s"], ["p"]),
        ],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(w, name) for w, name in zip(weights, "ab", strict=True)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture
def model(tmp_path):
    return network(tmp_path / "model.onnx")


def test_a_model_says_what_it_says(model):
    subject = onnxtool.verify(model, str(model)).subjects[0]
    assert subject.parity.passed
    assert subject.parity.outputs[0].max_absolute == 0
    assert subject.source.framework == "onnx"
    assert subject.parity.outputs[0].role == "probabilities"


def test_another_model_is_found_out(model, tmp_path):
    assert not onnxtool.verify(network(tmp_path / "other.onnx", 1.01), str(model))


@pytest.mark.parametrize("keep_io_types", [True, False])
def test_half_precision_is_compared_by_its_own_rounding(model, tmp_path, keep_io_types):
    half, wrong = tmp_path / "half.onnx", tmp_path / "wrong.onnx"
    onnx.save(convert_float_to_float16(onnx.load(model), keep_io_types=keep_io_types), half)
    parity = onnxtool.verify(half, str(model)).subjects[0].parity
    assert parity.passed
    assert parity.outputs[0].max_absolute > 1e-5
    other = network(tmp_path / "other.onnx", 1.3)
    onnx.save(convert_float_to_float16(onnx.load(other), keep_io_types=keep_io_types), wrong)
    assert not onnxtool.verify(wrong, str(model))


def test_whole_numbers_are_compared_in_steps(model, tmp_path):
    quantize_dynamic(model, tmp_path / "int8.onnx")
    parity = onnxtool.verify(tmp_path / "int8.onnx", str(model)).subjects[0].parity
    assert parity.passed
    assert parity.outputs[0].max_absolute > 1e-3
    quantize_dynamic(network(tmp_path / "other.onnx", 3.0), tmp_path / "wrong.onnx")
    assert not onnxtool.verify(tmp_path / "wrong.onnx", str(model))


def test_an_absent_provider_is_an_error_that_says_so(model):
    for option in ({"provider": "cuda"}, {"against_provider": "cuda"}):
        with pytest.raises(UsageError, match="CUDAExecutionProvider is not in this build"):
            onnxtool.verify(model, str(model), **option)
    with pytest.raises(UsageError, match="no provider 'gpu'"):
        onnxtool.verify(model, str(model), provider="gpu")


@pytest.fixture
def classifier(tmp_path):
    source = LogisticRegression().fit(X, Y)
    onnxtool.convert(source, tmp_path / "logistic.onnx")
    return source, tmp_path / "logistic.onnx"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_is_verified_block_by_block(classifier, tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(stream.stream_data, "__defaults__", ((), 700))
    source, model = classifier
    frame = pd.DataFrame(X, columns=list("abcd")).assign(
        y=Y, site=np.where(np.arange(len(X)) % 3, "north", "south")
    )
    path = tmp_path / f"rows.{suffix}"
    getattr(frame, f"to_{suffix}")(path, index=False)
    subject = onnxtool.verify(model, source, data=path, labels="y", group="site").subjects[0]
    assert subject.parity.rows == subject.drift.rows == len(X)
    assert subject.parity.batches == [1, 3, 17, 200, 679, 700]
    assert subject.drift.metrics[0].source == source.score(X, Y)
    assert [group.rows for group in subject.drift.groups] == [2000, 1000]


def test_labels_of_their_own_file_keep_in_step(classifier, tmp_path):
    source, model = classifier
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    subject = onnxtool.verify(model, source, data=tmp_path / "x.npy", labels=str(tmp_path / "y.npy")).subjects[0]
    assert subject.drift.metrics[0].source == source.score(X, Y)
    for wrong in (Y[:-1], np.append(Y, 0)):
        np.save(tmp_path / "wrong.npy", wrong)
        with pytest.raises(DataError, match="labels"):
            onnxtool.verify(model, source, data=tmp_path / "x.npy", labels=str(tmp_path / "wrong.npy"))


GROWTH = """
import resource, sys
import numpy as np
import onnxtool
from sklearn.linear_model import LogisticRegression

x = np.random.default_rng(0).normal(size=(500, 20)).astype(np.float32)
source = LogisticRegression().fit(x, x[:, 0] > 0)
onnxtool.convert(source, "m.onnx")
small, large = sys.argv[1:]
assert onnxtool.verify("m.onnx", source, data=small)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert onnxtool.verify("m.onnx", source, data=large).subjects[0].parity.rows == 1_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """A million rows of 20 columns, 80 MB, in what a twelfth of them takes."""
    rows = np.random.default_rng(1).normal(size=(1_000_000, 20)).astype(np.float32)
    np.save(tmp_path / "small.npy", rows[:80_000])
    np.save(tmp_path / "large.npy", rows)
    command = [sys.executable, "-c", GROWTH, "small.npy", "large.npy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 20_000  # kB
