"""Approximations of kernels by features, none of which skl2onnx 1.20 has."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.converters.sklearn.kernels import between
from onnxtool.converters.sklearn.registration import transformer
from onnxtool.converters.sklearn.values import Value


def register() -> None:
    """Register this family."""
    transformer("kernel_approximation.Nystroem", _nystroem)
    transformer("kernel_approximation.RBFSampler", _cosines)
    transformer("kernel_approximation.SkewedChi2Sampler", _skewed)
    transformer("kernel_approximation.AdditiveChi2Sampler", _additive)
    transformer("kernel_approximation.PolynomialCountSketch", _count_sketch)


def _nystroem(rows: Value, model: Any) -> Value:
    kernel = between(rows, model.components_, model.kernel, model._get_kernel_params())
    weights: NDArray[Any] = model.normalization_.T
    return kernel.hstack_array(weights) @ weights


def _cosines(rows: Value, model: Any) -> Value:
    weights: NDArray[Any] = model.random_weights_
    angles = rows.hstack_array(weights) @ weights + np.asarray(model.random_offset_)
    return angles.apply("Cos") * float(np.sqrt(2.0 / model.n_components))


def _skewed(rows: Value, model: Any) -> Value:
    return _cosines((rows + float(model.skewedness)).apply("Log"), model)


def _additive(rows: Value, model: Any) -> Value:
    """Roots of the features, and their waves at multiples of the sampling interval; zero where the feature is."""
    interval = model.sample_interval or {1: 0.8, 2: 0.5, 3: 0.4}[model.sample_steps]
    given = rows > 0.0
    safe = given.where(rows, 1.0)
    blocks = [(rows * interval).apply("Sqrt")]
    for step in range(1, model.sample_steps):
        factor = (safe * (2 * interval / np.cosh(np.pi * step * interval))).apply("Sqrt")
        angle = safe.apply("Log") * (step * interval)
        blocks += [given.where(factor * angle.apply(wave), 0.0) for wave in ("Cos", "Sin")]
    return blocks[0].hstack(*blocks[1:])


def _count_sketch(rows: Value, model: Any) -> Value:
    """A circular convolution of sketches: a product of their Fourier transforms, here by matrices."""
    size = int(model.n_components)
    rows = rows * float(np.sqrt(model.gamma))
    places, signs = model.indexHash_, model.bitHash_
    if model.coef0 != 0:  # the last feature is the constant
        width = np.eye(places.shape[1] - 1, places.shape[1])
        last = np.zeros(places.shape[1])
        last[-1] = np.sqrt(model.coef0)
        rows = rows @ width + last
    turns = np.outer(np.arange(size), np.arange(size)) % size * (2 * np.pi / size)
    cosine, sine = np.asarray(np.cos(turns)), np.asarray(np.sin(turns))
    waves: list[tuple[Value, Value]] = []
    for place, sign in zip(places, signs, strict=True):
        sketch = np.zeros((len(place), size))
        sketch[np.arange(len(place)), place] = sign
        waves.append((rows @ (sketch @ cosine), rows @ (sketch @ -sine)))
    (real, imaginary), *others = waves
    for a, b in others:
        real, imaginary = real * a - imaginary * b, real * b + imaginary * a
    return (real @ cosine - imaginary @ sine) / float(size)
