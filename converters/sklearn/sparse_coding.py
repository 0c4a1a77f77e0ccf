"""Rows as sums of few atoms of a dictionary; skl2onnx 1.20 has none of these."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.converters.sklearn.registration import transformer
from onnxtool.converters.sklearn.solve import solve
from onnxtool.converters.sklearn.values import Value
from onnxtool.errors import ConversionError


def register() -> None:
    """Register this family."""
    transformer("decomposition.SparseCoder", lambda rows, model: _code(rows, model, model.dictionary))
    for name in ("DictionaryLearning", "MiniBatchDictionaryLearning"):
        transformer(f"decomposition.{name}", lambda rows, model: _code(rows, model, model.components_))
    for name in ("NMF", "MiniBatchNMF"):
        transformer(f"decomposition.{name}", _factorisation)


def _code(rows: Value, model: Any, dictionary: Any) -> Value:
    atoms = np.asarray(dictionary, dtype=float)
    products = rows @ atoms.T
    if model.transform_algorithm == "threshold":
        code = _shrunk(products, model)
    elif model.transform_algorithm == "omp":
        count = model.transform_n_nonzero_coefs or min(max(atoms.shape[1] // 10, 1), len(atoms))
        code = _pursued(products, atoms @ atoms.T, int(count))
    else:
        raise ConversionError(
            f"{type(model).__name__}(transform_algorithm={model.transform_algorithm!r}) solves a problem with a path "
            "of its own for every row, which ONNX cannot express. Take 'omp' or 'threshold'."
        )
    if not model.split_sign:
        return code
    return code.apply("Max", 0.0).hstack((-code).apply("Max", 0.0))


def _shrunk(products: Value, model: Any) -> Value:
    given = getattr(model, "alpha", None) if model.transform_alpha is None else model.transform_alpha
    size = (products.apply("Abs") - float(1.0 if given is None else given)).apply("Max", 0.0)
    code = products.apply("Sign") * size
    return code.apply("Max", 0.0) if model.positive_code else code


def _pursued(products: Value, gram: NDArray[np.float64], count: int) -> Value:
    """Orthogonal matching pursuit: the atom most like the rest, then the best fit with all atoms so far."""
    rest, chosen, code = products, None, products
    for step in range(1, count + 1):
        place = rest.apply("Abs").first_greatest().reshape(-1, 1, 1)
        atom = place.equals(np.arange(len(gram))).double()
        chosen = atom if chosen is None else chosen.hstack(atom)
        across = chosen.apply("Transpose", perm=[0, 2, 1])
        right = chosen @ products.apply("Unsqueeze", np.array([2]))
        fitted = solve(chosen @ gram @ across, step, right)
        code = (across @ fitted).apply("Squeeze", np.array([2]))
        rest = products - code @ gram
    return code


def _factorisation(rows: Value, model: Any) -> Value:
    start = "" if getattr(model, "solver", "mu") == "cd" else "starts from the mean of all rows of a batch, and "
    raise ConversionError(
        f"{type(model).__name__} {start}stops when a batch as a whole has converged: what it says of a row depends "
        "on the other rows of the call, so it is no function of a row that ONNX could express."
    )
