"""Gaussian process classifiers: skl2onnx 1.20 writes an operator that ONNX Runtime does not have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.converters.sklearn.kernels import between
from onnxtool.converters.sklearn.registration import Decision, classifier
from onnxtool.converters.sklearn.values import Value, normalised, repeated, squared_distances
from onnxtool.errors import ConversionError, require


def register() -> None:
    """Register this family."""
    classifier("gaussian_process.GaussianProcessClassifier", _classifier)


def _classifier(rows: Value, model: Any) -> Decision:
    if model.n_classes_ == 2:
        latent, positive = _binary(rows, model.base_estimator_)
        return Decision((1.0 - positive).hstack(positive), (latent > 0.0).whole())
    if model.multi_class != "one_vs_rest":
        raise ConversionError("GaussianProcessClassifier(multi_class='one_vs_one') has no conversion to ONNX.")
    parts = [_binary(rows, one)[1] for one in model.base_estimator_.estimators_]
    return Decision(normalised(parts[0].hstack(*parts[1:])))


def _binary(rows: Value, model: Any) -> tuple[Value, Value]:
    """The latent mean and the second class's probability, by Williams and Barber's five error functions."""
    laplace = require("sklearn.gaussian_process._gpc", "sklearn")
    training = np.asarray(model.X_train_, dtype=float)
    kernel = _kernel(rows, training, model.kernel_)
    mean = kernel @ np.asarray(model.y_train_ - model.pi_, dtype=float).reshape(-1, 1)
    whitened = kernel @ (np.linalg.inv(model.L_) * model.W_sr_).T
    variance = _diagonal(rows, model.kernel_) - (whitened * whitened).sum()
    factors = np.ravel(laplace.LAMBDAS)
    weights = np.ravel(laplace.COEFS)
    # sqrt(pi / alpha) / (2 * sqrt(2 * pi * variance)) is one half, with alpha = 1 / (2 * variance).
    width = (variance * (2.0 * factors**2) + 1.0).apply("Sqrt")
    integral = erf(mean * factors / width)
    return mean, integral @ (0.5 * weights).reshape(-1, 1) + 0.5 * float(weights.sum())


def erf(values: Value) -> Value:
    """The error function in double precision, which ONNX Runtime has in single precision only.

    Below 2.5 by its series, in terms that are all positive; above by the continued fraction of its complement.
    """
    size = values.apply("Abs").apply("Min", 6.0)
    squared = size * size
    small = squared.apply("Min", 6.25)
    term = total = size.apply("Min", 2.5)
    for step in range(1, 60):
        term = term * small * (2.0 / (2 * step + 1))
        total = total + term
    near = total * (-small).apply("Exp") * float(2 / np.sqrt(np.pi))
    big = size.apply("Max", 2.5)
    fraction = big
    for step in range(60, 0, -1):
        fraction = big + (step / 2) / fraction
    far = 1.0 - (-(big * big)).apply("Exp") / fraction * float(1 / np.sqrt(np.pi))
    return (size < 2.5).where(near, far) * values.apply("Sign")


def _kernel(rows: Value, points: NDArray[Any], kernel: Any) -> Value:
    """A kernel of sklearn.gaussian_process between rows and fixed points."""
    kind = type(kernel).__name__
    if kind in ("Sum", "Product"):
        left, right = _kernel(rows, points, kernel.k1), _kernel(rows, points, kernel.k2)
        return left + right if kind == "Sum" else left * right
    if kind == "Exponentiation":
        return _kernel(rows, points, kernel.kernel) ** float(kernel.exponent)
    nothing = (rows @ np.zeros((points.shape[1], len(points)))) * 0.0
    if kind == "ConstantKernel":
        return nothing + float(kernel.constant_value)
    if kind == "WhiteKernel":
        return nothing
    if kind == "DotProduct":
        return rows @ points.T + float(kernel.sigma_0**2)
    if kind in ("RBF", "Matern"):
        scale = np.asarray(kernel.length_scale, dtype=float)
        if kind == "RBF":
            return between(rows / scale, points / scale, "rbf", {"gamma": 0.5})
        return _matern(squared_distances(rows / scale, points / scale), kernel.nu)
    if kind == "RationalQuadratic":
        far = squared_distances(rows, points) / float(2 * kernel.alpha * kernel.length_scale**2)
        return (far + 1.0) ** -float(kernel.alpha)
    raise ConversionError(f"GaussianProcessClassifier with the kernel {kind} has no conversion to ONNX.")


def _matern(squared: Value, nu: float) -> Value:
    if nu == np.inf:
        return (squared * -0.5).apply("Exp")
    if nu not in (0.5, 1.5, 2.5):
        raise ConversionError(f"The kernel Matern(nu={nu}) has no conversion to ONNX; 0.5, 1.5, 2.5 and inf have.")
    far = (squared * (2 * nu)).apply("Sqrt")
    found = (-far).apply("Exp")
    if nu == 0.5:
        return found
    return found * (far + 1.0 if nu == 1.5 else far + far * far / 3.0 + 1.0)


def _diagonal(rows: Value, kernel: Any) -> Value:
    """The kernel of each row with itself, [batch, 1]."""
    kind = type(kernel).__name__
    if kind in ("Sum", "Product"):
        left, right = _diagonal(rows, kernel.k1), _diagonal(rows, kernel.k2)
        return left + right if kind == "Sum" else left * right
    if kind == "Exponentiation":
        return _diagonal(rows, kernel.kernel) ** float(kernel.exponent)
    if kind == "DotProduct":
        return (rows * rows).sum() + float(kernel.sigma_0**2)
    if kind == "ConstantKernel":
        return repeated(rows, np.array([float(kernel.constant_value)]))
    return repeated(rows, np.array([float(kernel.noise_level) if kind == "WhiteKernel" else 1.0]))
