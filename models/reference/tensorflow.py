"""A small TensorFlow model that is not Keras's: two inputs and two outputs of different dtypes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onnxtool.models.tensorflow import import_tensorflow


def captioned() -> Any:
    """A `tf.Module` that says what an image and its caption are about.

    Its function takes `image`, float32 [batch, 32, 32, 3], and `tokens`, int32 [batch, length] below 300,
    and gives `topics`, float32 [batch, 12], and `length`, int32 [batch]: the tokens that are not padding (0).
    """
    tf = import_tensorflow()
    rng = np.random.default_rng(3)

    def weight(*shape: int) -> Any:
        fan_in = np.prod(shape[:-1])
        return tf.Variable((rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32))

    module = tf.Module(name="captioned")
    module.kernels = [weight(3, 3, 3, 16), weight(3, 3, 16, 32)]
    module.embedding = tf.Variable(rng.standard_normal((300, 32)).astype(np.float32))
    module.topics = weight(64, 12)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 32, 32, 3], tf.float32, "image"),
            tf.TensorSpec([None, None], tf.int32, "tokens"),
        ]
    )  # type: ignore[untyped-decorator]
    def classify(image: Any, tokens: Any) -> dict[str, Any]:
        x = image
        for kernel in module.kernels:
            x = tf.nn.relu(tf.nn.conv2d(x, kernel, strides=2, padding="SAME"))
        seen = tf.reduce_mean(x, axis=[1, 2])
        present = tf.cast(tokens != 0, tf.float32)[..., None]
        words = tf.gather(module.embedding, tokens) * present
        read = tf.reduce_sum(words, axis=1) / tf.maximum(tf.reduce_sum(present, axis=1), 1.0)
        both = tf.concat([seen, tf.tanh(read)], axis=1)
        length = tf.math.count_nonzero(tokens, axis=1, dtype=tf.int32)
        return {"topics": tf.nn.softmax(both @ module.topics), "length": length}

    module.classify = classify
    return module


def save(folder: Path) -> list[Path]:
    """Write the SavedModel folder `captioned`, and return its path."""
    tf = import_tensorflow()
    module = captioned()
    path = folder / "captioned"
    tf.saved_model.save(module, str(path), signatures=module.classify)
    return [path]
