"""For each layer of Keras, and each network of keras.applications, a small model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from onnxtool.models.keras.backend import import_keras

Shapes: TypeAlias = tuple[tuple[int | None, ...], ...]
Maker: TypeAlias = Callable[[Any], Any]

SERIES, IMAGE, VOLUME, ROW = (None, 6), (12, 12, 4), (8, 8, 8, 3), (6,)

NO_MODEL = {
    "FlaxLayer": "needs the JAX backend",
    "JaxLayer": "needs the JAX backend",
    "InputLayer": "computes nothing; every case has one",
    "Lambda": "holds the user's own code",
    "Layer": "the base class",
    "TFSMLayer": "holds a SavedModel, which is converted itself",
    "TorchModuleWrapper": "holds a PyTorch module, which is converted itself",
    "Wrapper": "the base class of wrappers",
    "GRUCell": "a step of GRU; see RNN",
    "LSTMCell": "a step of LSTM; see RNN",
    "SimpleRNNCell": "a step of SimpleRNN; see RNN",
    "StackedRNNCells": "steps of RNN; see RNN",
    "AugMix": "augments training data only",
    "CutMix": "augments training data only",
    "MixUp": "augments training data only",
    "MaxNumBoundingBoxes": "works on dictionaries of bounding boxes in a data pipeline",
    "ReversibleEmbedding": "its forward pass is that of Embedding, which is here",
}
"""Layers that have no case, and why."""


class Cases(dict[str, tuple[str, Shapes, Maker]]):
    """For each case its inputs' dtype, their shapes without the batch, and what makes its layer.

    A case's name is the layer's, with a variant after a slash.
    """

    def make(self, name: str, maker: Maker, *shapes: tuple[int | None, ...], dtype: str = "float32") -> None:
        """Add a case whose layer is made by a function of `keras.layers`."""
        self[name] = (dtype, shapes, maker)

    def add(self, names: str, *shapes: tuple[int | None, ...], dtype: str = "float32", **options: Any) -> None:
        """Add a case for each name, of a layer with these options."""
        for name in names.split():
            self.make(name, partial(_built, name.partition("/")[0], options), *shapes, dtype=dtype)


def _built(kind: str, options: dict[str, Any], layers: Any) -> Any:
    return getattr(layers, kind)(**options)


def layer_cases() -> Cases:
    """Every layer's cases."""
    cases = Cases()
    for part in (_plain, _spatial, _recurrent, _preprocessing):
        part(cases)
    return cases


def _plain(cases: Cases) -> None:
    cases.add("ELU LeakyReLU ReLU Softmax PReLU Identity Flatten ActivityRegularization UnitNormalization", ROW)
    cases.add("BatchNormalization LayerNormalization RMSNormalization", ROW)
    cases.add("Activation", ROW, activation="silu")
    cases.add("AlphaDropout Dropout GaussianDropout", ROW, rate=0.3)
    cases.add("GaussianNoise", ROW, stddev=0.3)
    cases.add("GroupNormalization", IMAGE, groups=2)
    cases.add("Dense", ROW, units=4, activation="gelu")
    cases.add("EinsumDense", SERIES, equation="abc,cd->abd", output_shape=(None, 5))
    cases.add("Embedding", (None,), dtype="int32", input_dim=20, output_dim=5)
    cases.add("Masking", SERIES)
    cases.add("Permute", (3, 4), dims=(2, 1))
    cases.add("RepeatVector", ROW, n=3)
    cases.add("Reshape", ROW, target_shape=(2, 3))
    cases.add("Add Average Maximum Minimum Multiply Subtract Concatenate", ROW, ROW)
    cases.add("Dot", ROW, ROW, axes=1)
    cases.add("Attention AdditiveAttention", (5, 6), (5, 6))
    cases.add("MultiHeadAttention", (5, 6), (5, 6), num_heads=2, key_dim=3)
    cases.add("GroupQueryAttention", (5, 8), (5, 8), head_dim=4, num_query_heads=4, num_key_value_heads=2)


def _spatial(cases: Cases) -> None:
    for rank, shape in ((1, (12, 4)), (2, IMAGE), (3, VOLUME)):
        cases.add(f"AveragePooling{rank}D MaxPooling{rank}D", shape, pool_size=2, padding="same")
        cases.add(f"GlobalAveragePooling{rank}D GlobalMaxPooling{rank}D UpSampling{rank}D", shape)
        cases.add(f"AdaptiveAveragePooling{rank}D AdaptiveMaxPooling{rank}D", shape, output_size=3)
        cases.add(f"ZeroPadding{rank}D Cropping{rank}D", shape)
        cases.add(f"SpatialDropout{rank}D", shape, rate=0.3)
        cases.add(f"Conv{rank}D", shape, filters=4, kernel_size=3, strides=2, padding="same")
        cases.add(f"Conv{rank}D/dilated", shape, filters=4, kernel_size=3, dilation_rate=2)
        cases.add(f"Conv{rank}DTranspose", shape, filters=4, kernel_size=3, strides=2, padding="same")
        cases.add(f"ConvLSTM{rank}D", (3, *(6,) * rank, 2), filters=3, kernel_size=3)
    cases.add("UpSampling2D/bilinear", IMAGE, size=2, interpolation="bilinear")
    cases.add("Conv1D/causal", (None, 4), filters=4, kernel_size=3, padding="causal")
    cases.add("Conv2D/groups", IMAGE, filters=4, kernel_size=3, groups=2)
    cases.add("DepthwiseConv1D", (12, 4), kernel_size=3)
    cases.add("DepthwiseConv2D", IMAGE, kernel_size=3, depth_multiplier=2)
    cases.add("SeparableConv1D", (12, 4), filters=5, kernel_size=3)
    cases.add("SeparableConv2D", IMAGE, filters=5, kernel_size=3)


def _recurrent(cases: Cases) -> None:
    for name in ("GRU", "LSTM", "SimpleRNN"):
        cases.add(name, SERIES, units=4)
        cases.add(f"{name}/sequences", SERIES, units=4, return_sequences=True)
        cases.add(f"{name}/backwards", SERIES, units=4, go_backwards=True)
        cases.add(f"{name}/state", SERIES, units=4, return_state=True)
        cases.make(f"{name}/masked", partial(_after_masking, name), SERIES)
        cases.make(f"{name}/embedded", partial(_after_embedding, name), (None,), dtype="int32")
        cases.make(
            f"Bidirectional/{name}-embedded",
            partial(_both_ways, name),
            (None,),
            dtype="int32",
        )
    cases.add("GRU/reset-before", SERIES, units=4, reset_after=False)
    cases.make("RNN", lambda ls: ls.RNN([ls.GRUCell(4), ls.LSTMCell(3)]), SERIES)
    cases.make("RNN/masked", lambda ls: _masked(ls.RNN(ls.LSTMCell(3))), SERIES)
    cases.make("Bidirectional", lambda ls: ls.Bidirectional(ls.LSTM(4)), SERIES)
    cases.make("TimeDistributed", lambda ls: ls.TimeDistributed(ls.Conv2D(2, 3)), (None, *IMAGE))
    cases.make("TimeDistributed/fixed", lambda ls: ls.TimeDistributed(ls.Dense(2)), (4, 6))
    cases.make("SpectralNormalization", lambda ls: ls.SpectralNormalization(ls.Dense(4)), ROW)
    cases.make("Pipeline", lambda ls: ls.Pipeline([ls.Rescaling(0.5), ls.Dense(2)]), ROW)


def _preprocessing(cases: Cases) -> None:
    cases.add("Rescaling", ROW, scale=0.1, offset=-1.0)
    cases.add("Normalization", ROW, mean=np.arange(6.0), variance=np.arange(1.0, 7.0))
    cases.add("Discretization", ROW, bin_boundaries=[-1.0, 0.0, 0.5])
    cases.add("Discretization/one-hot", (1,), bin_boundaries=[-1.0, 0.0, 0.5], output_mode="one_hot")
    cases.add("CategoryEncoding", (3,), dtype="int32", num_tokens=7)
    cases.add("CategoryEncoding/one-hot", (1,), dtype="int32", num_tokens=7, output_mode="one_hot")
    cases.add("CategoryEncoding/count", (3,), dtype="int32", num_tokens=7, output_mode="count")
    cases.add("Hashing", (2,), dtype="int64", num_bins=5)
    cases.add("Hashing/text", (2,), dtype="string", num_bins=5)
    cases.add("HashedCrossing", (1,), (1,), dtype="int64", num_bins=5)
    cases.add("IntegerLookup", (2,), dtype="int64", vocabulary=[3, 5, 8])
    cases.add("IntegerLookup/multi-hot", (2,), dtype="int64", vocabulary=[3, 5, 8], output_mode="multi_hot")
    words = ["red", "green", "blue"]
    cases.add("StringLookup", (2,), dtype="string", vocabulary=words)
    cases.add("StringLookup/count", (2,), dtype="string", vocabulary=words, output_mode="count")
    cases.add("StringLookup/unknown", (2,), dtype="string", vocabulary=words, num_oov_indices=2)
    cases.add("StringLookup/inverse", (2,), dtype="int64", vocabulary=words, invert=True)
    cases.add("StringLookup/masked", (2,), dtype="string", vocabulary=words, mask_token="grey")  # noqa: S106
    for variant, options in TEXTS.items():
        cases.add(f"TextVectorization{variant}", (), dtype="string", vocabulary=words, **options)
    cases.add("CenterCrop", IMAGE, height=6, width=6)
    cases.add("Resizing", IMAGE, height=9, width=7)
    cases.add("Resizing/nearest", IMAGE, height=24, width=24, interpolation="nearest")
    cases.add("Resizing/bytes", IMAGE, dtype="uint8", height=9, width=7)
    for kind in ("nearest", "bicubic", "lanczos3", "lanczos5"):
        cases.add(f"Resizing/{kind}-smaller", IMAGE, height=9, width=7, interpolation=kind)
    cases.add("Resizing/antialias", IMAGE, height=9, width=7, antialias=True)
    cases.add("Resizing/crop", IMAGE, height=9, width=7, crop_to_aspect_ratio=True)
    cases.add("Resizing/pad", IMAGE, height=9, width=7, pad_to_aspect_ratio=True)
    cases.add("Resizing/any-size", (None, None, 3), height=9, width=7)
    cases.add("UpSampling2D/bicubic", IMAGE, size=3, interpolation="bicubic")
    cases.add("MelSpectrogram", (1024,), fft_length=256, sequence_stride=128)
    cases.add("MelSpectrogram/power", (1000,), sequence_length=400, fft_length=512, power_to_db=False)
    for mode in ("magnitude", "psd", "real", "imag", "angle", "stft"):
        cases.add(
            f"STFTSpectrogram/{mode}", (1024, 1), mode=mode, frame_length=200, frame_step=128, fft_length=256
        )
    cases.add("STFTSpectrogram", (1024, 1), frame_length=256, frame_step=128, fft_length=256)
    picture = (12, 12, 3)
    for name in import_keras().layers.__dict__:
        if name.startswith("Random") or name == "RandAugment":
            cases.add(name, picture, **RANDOM.get(name, {}))
    cases.add("AutoContrast Solarization ContrastLimitedAdaptiveHistogramEqualization", picture)
    cases.make("Equalization", lambda ls: _traced(ls.Rescaling(60.0, 128.0), ls.Equalization()), picture)
    cases.make("Equalization/bytes", lambda ls: _traced(ls.Equalization()), picture, dtype="uint8")


TEXTS: dict[str, dict[str, Any]] = {
    "": {"output_sequence_length": 6},
    "/any-length": {"output_sequence_length": None},
    "/lower": {"standardize": "lower"},
    "/strip": {"standardize": "strip_punctuation"},
    "/as-is": {"standardize": None},
    "/unsplit": {"split": None},
    "/characters": {"split": "character"},
    "/pairs": {"ngrams": 2},
    "/multi-hot": {"output_mode": "multi_hot"},
    "/count": {"output_mode": "count"},
    "/tf-idf": {"output_mode": "tf_idf", "idf_weights": [0.5, 1.0, 2.0]},
}
"""Variants of TextVectorization."""

RANDOM: dict[str, dict[str, Any]] = {
    "RandomBrightness": {"factor": 0.2},
    "RandomColorDegeneration": {"factor": 0.2},
    "RandomContrast": {"factor": 0.2},
    "RandomCrop": {"height": 6, "width": 6},
    "RandomHue": {"factor": 0.2},
    "RandomPosterization": {"factor": 4},
    "RandomRotation": {"factor": 0.2},
    "RandomSaturation": {"factor": 0.2},
    "RandomSharpness": {"factor": 0.2},
    "RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2},
    "RandomZoom": {"height_factor": 0.2},
}
"""Required arguments of the layers that augment images, which pass images on when a model predicts."""


def application_names() -> list[str]:
    """Every network of keras.applications."""
    found = vars(import_keras().applications)
    return sorted(name for name, value in found.items() if callable(value) and name[0].isupper())


def layer_model(name: str) -> Any:
    """A model of one layer, whose weights and running statistics are random.

    Raises:
        KeyError: there is no such case.
    """
    keras = import_keras()
    dtype, shapes, maker = layer_cases()[name]
    keras.utils.set_random_seed(0)
    inputs = [keras.Input(shape, dtype=dtype, name=f"x{place}") for place, shape in enumerate(shapes)]
    layer = maker(keras.layers)
    if name.startswith(("MultiHeadAttention", "GroupQueryAttention")):
        outputs = layer(*inputs)
    else:
        outputs = layer(inputs if len(inputs) > 1 else inputs[0])
    return randomised(keras.Model(inputs, outputs))


_UNSETTLED = ("EfficientNetV2S", "EfficientNetV2M", "EfficientNetV2L")
"""So deep that values, and their rounding, grow without bound by random weights: they get the images' statistics."""


def application_model(name: str) -> Any:
    """A network of 7 classes over images of 64 by 64 (96 where it needs more), of random weights."""
    keras = import_keras()
    keras.utils.set_random_seed(0)
    size = 96 if name.startswith(("Inception", "Xception", "NASNet")) else 64
    build = getattr(keras.applications, name)
    model = randomised(build(weights=None, input_shape=(size, size, 3), classes=7, classifier_activation=None))
    if name in _UNSETTLED:
        _normalise(model)
    return model


def _normalise(model: Any) -> None:
    """Give batch norms the statistics of images, as training does: of many, or they enlarge the rounding of few."""
    for layer in model.layers:
        if hasattr(layer, "moving_variance"):
            layer.momentum = 0.0
    model(np.random.default_rng(1).uniform(0, 255, (64, *model.input.shape[1:])).astype(np.float32), training=True)


def application_rows(model: Any) -> dict[str, Any]:
    """Eight images of values 0 to 255, by the name of a network's input: as many as a large network allows."""
    rng = np.random.default_rng(0)
    name = model.input._keras_history.operation.name
    return {name: rng.uniform(0, 255, (8, *model.input.shape[1:])).astype(np.float32)}


def randomised(model: Any) -> Any:
    """Give biases, scales and running statistics values that a graph which leaves them out would get wrong."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        name = weight.path.rpartition("/")[2]
        noise = rng.uniform(-0.2, 0.2, weight.shape)
        if name in ("moving_variance", "gamma", "scale"):
            weight.assign(1.0 + noise)
        elif name in ("beta", "bias", "moving_mean"):
            weight.assign(noise)
    return model


def _after_masking(kind: str, layers: Any) -> Callable[[Any], Any]:
    return _masked(getattr(layers, kind)(4))


def _after_embedding(kind: str, layers: Any) -> Callable[[Any], Any]:
    return _embedded(getattr(layers, kind)(4))


def _both_ways(kind: str, layers: Any) -> Callable[[Any], Any]:
    return _embedded(layers.Bidirectional(getattr(layers, kind)(4, return_sequences=True)))


def _masked(layer: Any) -> Callable[[Any], Any]:
    """A layer after Masking, of rows that it masks: where the first feature is small."""
    keras = import_keras()

    def apply(x: Any) -> Any:
        kept = keras.ops.cast(x[..., :1] > -0.5, "float32")
        return layer(keras.layers.Masking()(x * kept))

    return apply


def _traced(*steps: Any) -> Any:
    """Layers inside a layer: in a graph of layers Keras 3.15 takes Equalization's input for its output."""

    class Inside(import_keras().layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.steps = steps

        def call(self, x: Any) -> Any:
            for step in self.steps:
                x = step(x)
            return x

    return Inside()


def _embedded(layer: Any) -> Callable[[Any], Any]:
    """A layer after an Embedding that masks zeros."""
    keras = import_keras()
    return lambda tokens: layer(keras.layers.Embedding(5, 6, mask_zero=True)(tokens))
