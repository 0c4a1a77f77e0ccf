"""Errors that conversions make are caught in real models of each framework, and honest models raise no alarm."""

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import onnxtool

DIGITS = load_digits()
X = DIGITS.data.astype(np.float32)
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])[DIGITS.target]


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.activation = nn.GELU()
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)
        with torch.no_grad():  # as training leaves them
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.05, 2)

    def forward(self, image):
        hidden = self.second(self.activation(self.norm(self.convolution(image))))
        return torch.softmax(self.head(hidden.mean((2, 3))), 1)


class Text(nn.Module):
    """A transformer over padded sequences, with PyTorch's own masks: causal (infinite) and of padding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 7)

    def forward(self, ids):
        causal = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        absent = (ids == 0) & (torch.arange(ids.shape[1]) > 0)
        padding = torch.zeros(ids.shape).masked_fill(absent, float("-inf"))
        return self.head(self.encoder(self.embedding(ids), mask=causal, src_key_padding_mask=padding))


def weight(part, factor):
    """One weight of a part, off by a factor."""

    def spoil(model):
        tensor = model.get_parameter(part).data
        tensor.view(-1)[tensor.abs().argmax()] *= factor

    return spoil


def setting(part, name, value):
    def spoil(model):
        setattr(model.get_submodule(part), name, value)

    return spoil


def half(model):
    model.half().float()


TORCH = {
    "images": (
        Images,
        ["image:float32[batch,3,12,12]"],
        {
            "an inner weight off by 2e-3": weight("convolution.weight", 1.002),
            "one weight of the head off by 1e-3": weight("head.weight", 1.001),
            "the norm's epsilon": setting("norm", "eps", 1e-3),
            "a smaller epsilon": setting("norm", "eps", 1e-6),
            "GELU by tanh": setting("activation", "approximate", "tanh"),
            "padding from the other side": setting("second", "padding_mode", "circular"),
            "float16 weights": half,
        },
    ),
    "text": (
        Text,
        ["ids:int64[batch,12]"],
        {
            "one weight off by 2e-3": weight("head.weight", 1.002),
            "an inner weight off by 1e-2": weight("encoder.layers.0.linear1.weight", 1.01),
            "a norm's epsilon": setting("encoder.layers.0.norm1", "eps", 1e-3),
            "float16 weights": half,
        },
    ),
}
FAULTS = [(kind, fault) for kind, (_, _, faults) in TORCH.items() for fault in faults]


@pytest.fixture(scope="module")
def torch_models(tmp_path_factory):
    made = {}
    for kind, (module, inputs, _) in TORCH.items():
        torch.manual_seed(0)
        model = module().eval()
        path = tmp_path_factory.mktemp(kind) / "model.onnx"
        assert onnxtool.convert(model, path, inputs=inputs)
        made[kind] = model, path, inputs
    return made


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize("seed", range(3))
def test_an_honest_network_raises_no_alarm(torch_models, kind, seed):
    model, path, inputs = torch_models[kind]
    output = onnxtool.verify(path, model, inputs=inputs, seed=seed).subjects[0].parity.outputs[0]
    assert output.passed
    assert output.tolerance.reason.startswith("derived: ")
    assert output.noise_ratio < 1.5


@pytest.mark.parametrize(("kind", "fault"), FAULTS)
def test_a_fault_of_a_network_is_caught(torch_models, kind, fault):
    model, path, inputs = torch_models[kind]
    spoiled = copy.deepcopy(model)
    TORCH[kind][2][fault](spoiled)
    assert not onnxtool.verify(path, spoiled, inputs=inputs)


def test_faults_of_a_keras_network_are_caught(tmp_path):
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((12, 12, 3), name="image")
    norm = keras.layers.BatchNormalization(name="norm")
    hidden = keras.layers.Activation("gelu")(norm(keras.layers.Conv2D(16, 3)(image)))
    model = keras.Model(image, keras.layers.Dense(10, "softmax")(keras.layers.GlobalAveragePooling2D()(hidden)))
    rng = np.random.default_rng(0)
    norm.set_weights([rng.uniform(0.5, 2, weights.shape) for weights in norm.get_weights()])
    for seed in range(3):
        assert onnxtool.convert(model, tmp_path / "m.onnx", seed=seed)
    weights = model.get_weights()
    weights[0].flat[np.abs(weights[0]).argmax()] *= 1.002
    model.set_weights(weights)
    assert not onnxtool.verify(tmp_path / "m.onnx", model)
    weights[0].flat[np.abs(weights[0]).argmax()] /= 1.002
    model.set_weights(weights)
    assert onnxtool.verify(tmp_path / "m.onnx", model)
    norm.epsilon = 1.1e-3
    model.make_predict_function(force=True)
    assert not onnxtool.verify(tmp_path / "m.onnx", model)


ESTIMATORS = {
    "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    "perceptron": lambda: make_pipeline(
        StandardScaler(), MLPClassifier(32, tol=1e-2, n_iter_no_change=3, max_iter=500, random_state=0)
    ),
    "forest": lambda: make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0)),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=5, random_state=0),
}


def _attribute(model, operator, name):
    nodes = (node for node in model.graph.node if node.op_type == operator)
    return next(entry for node in nodes for entry in node.attribute if entry.name == name)


def _threshold(model):
    """The split at a root falls to the other side of a value that rows have: one ULP, past that value."""
    thresholds = _attribute(model, "TreeEnsembleRegressor", "nodes_values").floats
    features = _attribute(model, "TreeEnsembleRegressor", "nodes_featureids").ints
    scaled = StandardScaler().fit(X).transform(X)
    column = np.unique(scaled[:, features[0]]).astype(np.float32)
    below = column[column <= np.float32(thresholds[0])][-1]
    thresholds[0] = np.nextafter(below, np.float32(-np.inf))


def _leaf(model):
    weights = _attribute(model, "TreeEnsembleRegressor", "target_weights").floats
    weights[int(np.argmax(np.abs(weights)))] *= 1.01


def _coefficient(model):
    tensor = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [32, 10])
    values = numpy_helper.to_array(tensor).copy()
    values.flat[np.abs(values).argmax()] *= 1.001
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _classes(model):
    """Two class labels change places."""
    lists = [entry.strings for node in model.graph.node for entry in node.attribute]
    lists += [tensor.string_data for tensor in model.graph.initializer]
    names = next(names for names in lists if len(names) == 10)
    names[3], names[4] = names[4], names[3]


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("logistic", _classes),
        ("perceptron", _coefficient),
        ("perceptron", _classes),
        ("forest", _threshold),
        ("forest", _leaf),
        ("forest", _classes),
        ("boosting", _leaf),
    ],
)
def test_a_fault_of_an_estimator_is_caught(tmp_path, name, spoil):
    model = ESTIMATORS[name]().fit(X, NAMES)
    path = tmp_path / "model.onnx"
    assert onnxtool.convert(model, path, data=X)
    proto = onnx.load(path)
    spoil(proto)
    onnx.save(proto, path)
    assert not onnxtool.verify(path, model, data=X)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_honest_estimator_raises_no_alarm(tmp_path, name, dtype):
    model = ESTIMATORS[name]().fit(X.astype(dtype), NAMES)
    rows = X.astype(dtype) + np.random.default_rng(0).normal(size=X.shape).astype(dtype)
    assert onnxtool.convert(model, tmp_path / "model.onnx", data=rows)
