"""Kernels between rows and what a model remembers, in double precision as scikit-learn computes them.

skl2onnx 1.20 has no kernel ridge regression and no label propagation; its support vector machines for float64
rows are refused by ONNX Runtime, and its KernelPCA loses digits in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.converters.sklearn.registration import (
    Decision,
    classifier,
    detector,
    regressor,
    transformer,
)
from onnxtool.converters.sklearn.values import Value, normalised, squared_distances
from onnxtool.errors import ConversionError


def register() -> None:
    """Register this family."""
    regressor("kernel_ridge.KernelRidge", _kernel_ridge)
    transformer("decomposition.KernelPCA", kernel_components)
    for name in ("LabelPropagation", "LabelSpreading"):
        classifier(f"semi_supervised.{name}", _propagated)
    for name in ("SVR", "NuSVR"):
        regressor(f"svm.{name}", _support_vector_regression)
    detector("svm.OneClassSVM", _one_class)


def between(rows: Value, points: NDArray[Any], kernel: Any, parameters: Mapping[str, Any] | None = None) -> Value:
    """The kernel between rows and fixed points, [batch, points].

    Args:
        rows: A matrix.
        points: What the model remembers, [points, features].
        kernel: Name of one of scikit-learn's pairwise kernels.
        parameters: Its `gamma`, `degree` and `coef0`; None among them is the default.

    Raises:
        ConversionError: it is a function, or precomputed.
    """
    given = {key: value for key, value in (parameters or {}).items() if value is not None}
    points = np.asarray(points.toarray() if hasattr(points, "toarray") else points)
    own = rows.hstack_array(points)
    gamma = float(given.get("gamma", 1.0 / points.shape[1]))
    degree, coef0 = float(given.get("degree", 3)), float(given.get("coef0", 1))
    kernels: dict[str, Callable[[], Value]] = {
        "linear": lambda: own @ points.T,
        "rbf": lambda: (squared_distances(rows, points).hstack_array(points) * -gamma).apply("Exp"),
        "poly": lambda: ((own @ points.T) * gamma + coef0) ** degree,
        "sigmoid": lambda: ((own @ points.T) * gamma + coef0).apply("Tanh"),
        "cosine": lambda: (own / (own * own).sum().apply("Sqrt")) @ _unit(points).T,
        "laplacian": lambda: (manhattan(rows, points).hstack_array(points) * -gamma).apply("Exp"),
    }
    kernels["polynomial"] = kernels["poly"]
    if kernel not in kernels:
        shown = kernel if isinstance(kernel, str) else getattr(kernel, "__name__", type(kernel).__name__)
        raise ConversionError(f"The kernel {shown!r} has no conversion to ONNX. Known are {', '.join(kernels)}.")
    return kernels[kernel]()


def _unit(points: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))


def manhattan(rows: Value, points: NDArray[Any]) -> Value:
    """Sums of absolute differences to fixed points, [batch, points]."""
    differences = rows.apply("Unsqueeze", np.array([1])) - points
    return differences.apply("Abs").sum(2).apply("Squeeze", np.array([2]))


def _kernel_ridge(rows: Value, model: Any) -> Value:
    kernel = between(rows, model.X_fit_, model.kernel, _parameters(model))
    weights: NDArray[Any] = model.dual_coef_.reshape(len(model.X_fit_), -1)
    return kernel.hstack_array(weights) @ weights


def _parameters(model: Any) -> dict[str, Any]:
    if model.kernel_params:
        raise ConversionError(f"{type(model).__name__} with kernel_params has no conversion to ONNX.")
    return {name: getattr(model, name) for name in ("gamma", "degree", "coef0")}


def kernel_components(rows: Value, model: Any) -> Value:
    """The projection on the components of a KernelPCA."""
    parameters = {**_parameters(model), "gamma": model.gamma_}
    kernel = between(rows, model.X_fit_, model.kernel, parameters)
    return centred_components(kernel.double(), model)


def centred_components(kernel: Value, model: Any) -> Value:
    """The projection of a kernel between rows and training rows, [batch, training rows]."""
    centre = model._centerer
    mean = kernel.sum() / float(len(centre.K_fit_rows_))
    centred = kernel - np.asarray(centre.K_fit_rows_, dtype=float) - mean + float(centre.K_fit_all_)
    scaled = np.zeros_like(model.eigenvectors_, dtype=float)
    positive = model.eigenvalues_ > 0
    scaled[:, positive] = model.eigenvectors_[:, positive] / np.sqrt(model.eigenvalues_[positive])
    return centred @ scaled


def _propagated(rows: Value, model: Any) -> Decision:
    if model.kernel == "rbf":
        weights = between(rows, model.X_, "rbf", {"gamma": model.gamma}).double()
        return Decision(normalised(weights @ model.label_distributions_))
    if model.kernel != "knn":
        raise ConversionError(f"{type(model).__name__} with a function as kernel has no conversion to ONNX.")
    nearest = (-squared_distances(rows, model.X_)).nearest(model.n_neighbors)
    chosen = nearest.of(np.asarray(model.label_distributions_, dtype=float)).at(nearest)
    return Decision(normalised(chosen.sum(1).apply("Squeeze", np.array([1]))))


# -- Support vectors ------------------------------------------------------------------------------------------


def _support(rows: Value, model: Any) -> Value:
    """The kernel between the rows and the support vectors."""
    parameters = {"gamma": model._gamma, "degree": model.degree, "coef0": model.coef0}
    return between(rows, model.support_vectors_.astype(float), model.kernel, parameters)


def _combined(rows: Value, model: Any) -> Value:
    weights = model.dual_coef_.toarray() if hasattr(model.dual_coef_, "toarray") else model.dual_coef_
    return _support(rows, model).double() @ np.asarray(weights, dtype=float).T + np.asarray(
        model.intercept_, dtype=float
    )


def _support_vector_regression(rows: Value, model: Any) -> Value:
    return _combined(rows, model)


def _one_class(rows: Value, model: Any) -> tuple[Value, Value]:
    score = _combined(rows, model)
    return score > 0.0, score
