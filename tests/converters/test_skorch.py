"""skorch's networks, alone and in pipelines, live and from files, by bare ONNX Runtime beside the network alone."""

from __future__ import annotations

import inspect
import pickle
import re
import warnings

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import PrintLog
from torch import nn

import onnxtool
from benchmarks.coverage.bare import rows_off
from onnxtool.errors import ConversionError, UntrustedError
from onnxtool.models.safety.admission import admit, is_function

ROWS = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
BINARY = (ROWS[:, 0] > 0).astype(np.int64)


def layers(count, *last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, count), *last)


NETWORKS = {
    "shares": lambda: NeuralNetClassifier(layers(2, nn.Softmax(dim=-1)), max_epochs=1, verbose=0).fit(
        ROWS, BINARY
    ),
    "cross entropy in a pipeline": lambda: make_pipeline(
        StandardScaler(), NeuralNetClassifier(layers(3), criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0)
    ).fit(ROWS, BINARY + (ROWS[:, 1] > 0)),
    "two classes": lambda: NeuralNetBinaryClassifier(layers(1), max_epochs=1, verbose=0, threshold=0.4).fit(
        ROWS, BINARY.astype(np.float32)
    ),
    "numbers": lambda: NeuralNetRegressor(layers(1), max_epochs=1, verbose=0).fit(ROWS, ROWS[:, :1]),
}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of skorch and of PyTorch's exporter
        yield


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_agrees(name, tmp_path):
    net = NETWORKS[name]()
    assert onnxtool.convert(net, tmp_path / "m.onnx", data=ROWS, sandbox=None).passed
    assert rows_off(net, ROWS, tmp_path / "m.onnx") == 0


def test_its_file_opens_after_what_the_message_says(tmp_path, monkeypatch):
    # Ray replaces print in a process that has imported it; skorch keeps the one that it found.
    monkeypatch.setattr("builtins.print", inspect.signature(PrintLog).parameters["sink"].default)
    file = tmp_path / "net.pkl"
    file.write_bytes(pickle.dumps(NETWORKS["cross entropy in a pipeline"]()))
    with pytest.raises(UntrustedError) as refused:
        onnxtool.convert(file, tmp_path / "m.onnx", data=ROWS, sandbox=None)
    trust = re.findall(r"--trust (\S+)", str(refused.value))
    assert trust == ["skorch", "torch"]
    assert onnxtool.convert(file, tmp_path / "m.onnx", data=ROWS, trust=trust).passed


def test_print_is_kept_as_a_value_alone():
    """A partial of it would write to the file that it is given."""
    found = admit("builtins", "print")
    assert not found.allows("REDUCE", ("text",))
    assert not is_function(found)
    assert not admit("functools", "partial").allows("REDUCE", (found,))


def test_probabilities_of_ones_own_are_refused(tmp_path):
    net = NeuralNetClassifier(layers(2), max_epochs=1, verbose=0, predict_nonlinearity=torch.exp)
    net.fit(ROWS, BINARY)
    with pytest.raises(ConversionError, match="predict_nonlinearity of one's own"):
        onnxtool.convert(net, tmp_path / "m.onnx", data=ROWS, sandbox=None)
