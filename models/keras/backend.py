"""Keras on one of its backends: TensorFlow, or PyTorch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from onnxtool.errors import SourceError, UsageError, require
from onnxtool.models import tensorflow
from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.models.torch import to_array


def backend() -> str:
    """The backend that Keras runs on, or will: `tensorflow` or `torch`.

    Where Keras is not imported yet, it is the value of KERAS_BACKEND, else TensorFlow where that is installed.

    Raises:
        UsageError: it is another one.
    """
    keras = sys.modules.get("keras")
    if keras:
        chosen = keras.backend.backend()
    else:
        installed = "torch" if not find_spec("tensorflow") and find_spec("torch") else "tensorflow"
        chosen = os.environ.get("KERAS_BACKEND") or installed
    if chosen not in ("tensorflow", "torch"):
        raise UsageError(
            f"Keras runs on {chosen} here, and onnxtool converts on its TensorFlow and PyTorch backends. "
            "Save the model as .keras, and run again with KERAS_BACKEND=tensorflow or torch."
        )
    return str(chosen)


def import_keras() -> Any:
    """Import Keras on one of the two backends, without chatter.

    Raises:
        MissingExtraError: Keras or its backend is not installed.
        UsageError: Keras is configured for another backend.
    """
    chosen = backend()
    if chosen == "torch":
        require("torch", "torch")
    if chosen == "tensorflow" or find_spec("tensorflow"):  # which Keras imports on every backend, with chatter
        tensorflow.import_tensorflow()
    if "keras" not in sys.modules:
        # Only for the import: the user's next program may use the backend of ~/.keras/keras.json.
        before = os.environ.get("KERAS_BACKEND")
        os.environ["KERAS_BACKEND"] = chosen
        try:
            return require("keras", "keras")
        finally:
            if before is None:
                del os.environ["KERAS_BACKEND"]
            else:
                os.environ["KERAS_BACKEND"] = before
    return sys.modules["keras"]


def version() -> str:
    """The version of Keras, and of PyTorch where that is its backend."""
    keras = str(import_keras().__version__)
    return f"{keras} on torch {require('torch', 'torch').__version__}" if backend() == "torch" else keras


def as_graph(call: Callable[..., Sequence[Any]], *, one_a_shape: bool) -> Callable[..., Sequence[Any]]:
    """The function as `Model.predict` runs it: as a graph on TensorFlow, eagerly on PyTorch.

    Args:
        call: The function.
        one_a_shape: Whether each shape of the inputs gets a graph of its own.
    """
    if backend() == "torch":
        return call
    graph: Callable[..., Sequence[Any]] = tensorflow.import_tensorflow().function(
        call, reduce_retracing=not one_a_shape
    )
    return graph


def run(
    call: Callable[..., Sequence[Any]], specs: Sequence[TensorSpec], names: Sequence[str], rows: Tensors
) -> Tensors:
    """Call a function of the backend's tensors with arrays, and name what it returns.

    Raises:
        DataError: the function fails on these rows.
        SourceError: an output is ragged or sparse.
    """
    if backend() == "tensorflow":
        with tensorflow.quiet():  # it warns of a graph for each shape
            return tensorflow.run(call, specs, names, rows)
    torch = require("torch", "torch")
    convert = import_keras().ops.convert_to_tensor
    with tensorflow.running(), torch.no_grad():
        values = call(*(convert(rows[spec.name], dtype=spec.dtype) for spec in specs))
    if strange := [name for name, value in zip(names, values, strict=True) if not _is_dense(value)]:
        raise SourceError(f"Output {strange[0]!r} is no dense tensor, and only those can be compared.")
    return {name: to_array(value) for name, value in zip(names, values, strict=True)}


def _is_dense(value: Any) -> bool:
    torch = require("torch", "torch")
    return isinstance(value, torch.Tensor) and value.layout == torch.strided
