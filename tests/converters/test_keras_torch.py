"""Keras on its PyTorch backend: a process has one backend, so these run in others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onnxtool.models.reference import keras as reference

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def on_torch(*command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "KERAS_BACKEND": "torch", **env}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The reference models' files, saved on TensorFlow, by name."""
    return {path.stem: path for path in reference.save(tmp_path_factory.mktemp("keras"))}


KINDS = ("Conv2D", "MultiHeadAttention", "ConvLSTM1D", "RandomHue")
LAYERS = f"""
from benchmarks.coverage import keras as table
found = [list(table.versions()), {{name: table.examine(name) for name in {KINDS}}}]
"""


def test_a_file_converts_on_the_command_line(saved: dict[str, Path], tmp_path: Path) -> None:
    done = on_torch(
        *("-m", "onnxtool", "convert", str(saved["lstm"]), "-o", "m.onnx", "--opset", "22", "--json", "r.json"),
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    subject = json.loads((tmp_path / "r.json").read_text())["subjects"][0]
    assert " on torch 2." in subject["source"]["framework_version"]
    assert subject["model"]["opsets"]["ai.onnx"] == 22
    assert subject["parity"]["passed"]


LENGTHS = """
import sys, numpy as np, keras, onnxruntime, onnxtool
from keras import layers
keras.utils.set_random_seed(0)
assert keras.backend.backend() == "torch"
assert "tensorflow" in sys.modules
inputs = keras.Input((None, 6), name="x")
masked = layers.Masking()(inputs)
outputs = [
    layers.LSTM(4, return_sequences=True)(inputs), layers.LSTM(3, use_bias=False, go_backwards=True)(inputs),
    layers.GRU(4, bias_initializer="random_normal")(inputs), layers.GRU(4, reset_after=False)(inputs),
    layers.Bidirectional(layers.GRU(3, return_sequences=True))(masked), layers.LSTM(4, activation="relu")(masked),
    layers.RNN([layers.GRUCell(4), layers.LSTMCell(3)], return_sequences=True, zero_output_for_mask=True)(masked),
    *layers.LSTM(4, return_state=True)(masked), layers.TimeDistributed(layers.Dense(2))(inputs),
]
model = keras.Model(inputs, outputs)
assert onnxtool.convert(model, "m.onnx")
session = onnxruntime.InferenceSession("m.onnx")
for rows, length in ((1, 1), (3, 7), (5, 2), (2, 20)):
    x = np.random.default_rng(length).normal(size=(rows, length, 6)).astype(np.float32)
    x[0, length // 2 :] = 0  # masked
    x[-1, 0] = 0
    for correct, got in zip(model(x, training=False), session.run(None, {"x": x}), strict=True):
        np.testing.assert_allclose(got, correct.detach().numpy(), rtol=1e-4, atol=1e-5)
operators = [node.op_type for node in __import__("onnx").load("m.onnx").graph.node]
assert operators.count("LSTM") == 2 and operators.count("GRU") == 1 and operators.count("Scan") >= 5, operators
assert keras.config.is_traceback_filtering_enabled()
"""


TENSORFLOWS = """
import keras, onnxtool
found = []
for layer, dtype in (keras.layers.StringLookup(vocabulary=["a"]), "string"), (
    keras.layers.IntegerLookup(vocabulary=[7], name="ids"), "int64"
):
    value = keras.Input((2,), dtype=dtype)
    try: onnxtool.convert(keras.Model(value, layer(value)), "m.onnx")
    except onnxtool.OnnxtoolError as error: found.append(str(error))
"""

EACH = """
import json, sys, traceback
for name, code in json.loads(sys.argv[1]).items():
    space = {"found": None}
    try: exec(code, space)
    except BaseException: space["found"] = traceback.format_exc()
    print(json.dumps({name: space["found"]}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each piece of code leaves in `found`, or its traceback, all run in one process on the backend."""
    pieces = json.dumps({"layers": LAYERS, "lengths": LENGTHS, "tensorflows": TENSORFLOWS})
    root = str(Path(__file__).parents[2])
    done = on_torch("-c", EACH, pieces, cwd=tmp_path_factory.mktemp("pieces"), PYTHONPATH=root)
    assert done.returncode == 0, done.stderr
    return {name: value for line in done.stdout.splitlines() for name, value in json.loads(line).items()}


def test_layers_agree(found: dict[str, Any]) -> None:
    versions, results = found["layers"]
    assert set(versions) == {"keras", "torch", "onnxruntime"}
    assert results == {name: {"outcome": "agrees", "reason": ""} for name in KINDS}


def test_recurrent_layers_take_any_number_of_steps(found: dict[str, Any]) -> None:
    assert found["lengths"] is None


def test_without_tensorflow_it_is_the_backend(saved: dict[str, Path], tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = None; import onnxtool\n"
        "assert onnxtool.convert(sys.argv[1], 'm.onnx', sandbox=None)\n"
        "import keras; assert keras.backend.backend() == 'torch'"
    )
    env = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    command = [sys.executable, "-c", code, str(saved["cnn"])]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_layers_that_compute_in_tensorflow_want_its_backend(found: dict[str, Any]) -> None:
    assert found["tensorflows"] == [
        "The model reads text, and PyTorch has no tensors of text. Run again with KERAS_BACKEND=tensorflow.",
        "ids (IntegerLookup) computes in TensorFlow on every backend of Keras. "
        "Run again with KERAS_BACKEND=tensorflow.",
    ]
