"""Models that learnt scikit-learn's digits, one of each kind, and their ONNX models."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxtool

TRAINED = 1400
"""Rows to learn from; the rest is to evaluate on."""

SHAPES = {"cnn": (1, 8, 8), "transformer": (8, 8), "keras": (64,), "sklearn": (64,)}


@pytest.fixture(scope="session")
def digits():
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    return (rows / 16).astype(np.float32), labels


@pytest.fixture(scope="session")
def networks(digits):
    """Source models by kind, trained when they are first used."""
    makers = {"cnn": _cnn, "transformer": _transformer, "keras": _keras, "sklearn": _sklearn}
    made = {}

    def make(kind):
        if kind not in made:
            rows, labels = digits
            made[kind] = makers[kind](rows[:TRAINED].reshape(-1, *SHAPES[kind]), labels[:TRAINED])
        return made[kind]

    return make


@pytest.fixture(scope="session")
def converted(networks, digits, tmp_path_factory):
    """Paths of ONNX models by kind, and rows to evaluate on, as their inputs have them."""
    folder = tmp_path_factory.mktemp("converted")

    def convert(kind):
        path = folder / f"{kind}.onnx"
        rows = digits[0][TRAINED:].reshape(-1, *SHAPES[kind])
        if not path.exists():
            onnxtool.convert(networks(kind), path, data=rows, verify=False)
        return path, rows

    return convert


def _fit(module, rows, labels, steps):
    import torch

    optimizer = torch.optim.Adam(module.parameters(), 2e-2)
    inputs, targets = torch.tensor(rows), torch.tensor(labels)
    for _ in range(steps):
        drawn = torch.randint(0, len(rows), (128,))
        loss = torch.nn.functional.cross_entropy(module(inputs[drawn]), targets[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval()


def _cnn(rows, labels):
    import torch
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    return _fit(module, rows, labels, 30)


def _transformer(rows, labels):
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0)
            self.embed = nn.Linear(8, 32)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.classify = nn.Linear(32, 10)

        def forward(self, x):
            return self.classify(self.encoder(self.embed(x)).mean(1))

    return _fit(Transformer(), rows, labels, 30)


def _keras(rows, labels):
    from onnxtool.models.keras.backend import import_keras

    keras = import_keras()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((64,)), layers.Dense(64, "relu"), layers.Dense(32, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(rows, labels, epochs=8, verbose=0)
    return model


def _sklearn(rows, labels):
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it need not converge
        return make_pipeline(StandardScaler(), MLPClassifier((64, 32), max_iter=30, random_state=0)).fit(
            rows, labels
        )


@pytest.fixture
def graph(tmp_path):
    """Writes a model of one input and one output, float32 [batch, 4] by default."""

    def write(nodes, shape=("batch", 4), result=None, opset=20, **constants):
        model = helper.make_model(
            helper.make_graph(
                nodes,
                "g",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, result or shape)],
                [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
            ),
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=9,
        )
        path = tmp_path / "source.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write
