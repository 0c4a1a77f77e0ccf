"""Small Keras models of real kinds, seeded and untrained: two image classifiers and a text classifier."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from onnxtool.models.keras.backend import import_keras


def cnn() -> Any:
    """An image classifier: float32 image [batch, 32, 32, 3] to probabilities [batch, 10]."""
    keras = import_keras()
    layers = keras.layers
    image = keras.Input((32, 32, 3), name="image")
    x = image
    for width in (16, 32):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
        shortcut = x
        x = layers.SeparableConv2D(width, 3, padding="same", activation="gelu")(x)
        x = layers.Add()([x, shortcut])
        x = layers.MaxPooling2D(2)(x)
    x = layers.Dropout(0.3)(layers.Flatten()(x))
    model = keras.Model(image, layers.Dense(10, activation="softmax", name="probabilities")(x), name="cnn")
    return _trained(model, seed=0)


def lstm() -> Any:
    """A text classifier that skips padding: int32 tokens [batch, time] below 500 to probabilities [batch, 4]."""
    keras = import_keras()
    layers = keras.layers
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = layers.Embedding(500, 32, mask_zero=True)(tokens)
    x = layers.Bidirectional(layers.LSTM(24, return_sequences=True))(x)
    x = layers.LSTM(24)(x)
    model = keras.Model(tokens, layers.Dense(4, activation="softmax", name="probabilities")(x), name="lstm")
    return _trained(model, seed=1)


def mobilenet() -> Any:
    """MobileNetV2 of width 0.35: float32 image [batch, 96, 96, 3] to probabilities [batch, 10]."""
    keras = import_keras()
    image = keras.Input((96, 96, 3), name="image")
    network = keras.applications.MobileNetV2(input_tensor=image, weights=None, alpha=0.35, classes=10)
    model = keras.Model(image, network.output, name="mobilenet")
    return _trained(model, seed=2)


def save(folder: Path) -> list[Path]:
    """Write `cnn.keras`, `lstm.keras` and `mobilenet.keras`, and return their paths."""
    written = []
    for model in (cnn(), lstm(), mobilenet()):
        path = folder / f"{model.name}.keras"
        with warnings.catch_warnings():  # TensorFlow's arrays do not know NumPy 2's `copy`
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            model.save(path)
        written.append(path)
    return written


def _trained(model: Any, seed: int) -> Any:
    """Give a model weights as training leaves them, and batch norms that have seen images."""
    keras = import_keras()
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 25
        centre = 1.0 if weight.name == "gamma" else 0.0
        weight.assign(centre + rng.standard_normal(weight.shape) * np.sqrt(2 / fan_in))
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if norms:
        images = rng.standard_normal((16, *model.inputs[0].shape[1:])) * 1.5 + 0.3
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 0.0  # the running statistics become this batch's
        model(images.astype(np.float32), training=True)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return model
