"""Keras 2 and 3 to ONNX: the model is traced as a TensorFlow function, or as a PyTorch module."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnxtool.converters.framework import Conversion, ConvertOptions, Framework
from onnxtool.converters.keras import torch as keras_torch
from onnxtool.converters.tensorflow import FRAMEWORK as TENSORFLOW
from onnxtool.converters.tensorflow import convert_function
from onnxtool.converters.torch import FRAMEWORK as TORCH
from onnxtool.models.keras import KerasModel, load_keras, reset_states
from onnxtool.models.keras.backend import backend, import_keras
from onnxtool.models.keras.files import is_keras_file, saved_version
from onnxtool.models.keras.keras2 import Keras2Model
from onnxtool.models.signature import Tensors
from onnxtool.models.source import LoadOptions, SourceModel
from onnxtool.models.versions import saved_by
from onnxtool.reports.model import SavedBy


class Keras(Framework):
    """`.keras` and `.h5` files, and live Keras models."""

    name = "keras"
    extra = "keras"

    @property
    def max_opset(self) -> int:  # type: ignore[override]
        """The highest opset on Keras's backend."""
        return (TORCH if backend() == "torch" else TENSORFLOW).max_opset

    @property
    def default_opset(self) -> int:  # type: ignore[override]
        """The default opset on Keras's backend."""
        return (TORCH if backend() == "torch" else TENSORFLOW).default_opset

    def recognises(self, source: str) -> bool:
        """Whether a path is an archive that Keras wrote, or an HDF5 file."""
        return is_keras_file(Path(source))

    def owns(self, model: object) -> bool:
        """Whether it is a model of Keras 3, or of Keras 2 by way of tf_keras."""
        return any(_is_model_of(library, model) for library in ("keras", "tf_keras"))

    def load(self, source: str, options: LoadOptions) -> object:
        """Load a model in safe mode; see `models.keras`."""
        return load_keras(Path(source), options)

    def saved_by(self, source: str, model: object) -> list[SavedBy]:
        """Keras's release, which both of its formats name."""
        (library,) = {kind.__module__.partition(".")[0] for kind in type(model).__mro__} & {"keras", "tf_keras"}
        version, running = saved_version(Path(source)), sys.modules[library].__version__
        return [saved_by("keras", version, running, "major")] if version else []

    def wrap(self, model: object, options: LoadOptions) -> SourceModel:
        """Wrap a Keras model as a source model."""
        return Keras2Model(model, options) if _is_model_of("tf_keras", model) else KerasModel(model, options)

    def convert(self, source: SourceModel, example: Tensors, options: ConvertOptions) -> Conversion:
        """Convert as the backend's framework does. States of recurrent layers start at zero."""
        if isinstance(source, Keras2Model):
            source.reset_states()
            opset = options.opset or TENSORFLOW.default_opset
            return convert_function(source.call, source.inputs, source.outputs, opset)
        assert isinstance(source, KerasModel)  # noqa: S101 -- what `wrap` returned
        reset_states(source.model)
        with _time_as_rows():
            if backend() == "torch":
                return keras_torch.convert(source, example, options.opset or self.default_opset)
            return convert_function(
                source.call, source.inputs, source.outputs, options.opset or self.default_opset
            )


def _is_model_of(library: str, model: object) -> bool:
    keras = sys.modules.get(library)
    return keras is not None and isinstance(model, keras.Model)


@contextmanager
def _time_as_rows() -> Iterator[None]:
    """Trace a TimeDistributed whose time is dynamic with its steps as rows of one batch.

    Keras 3.15 maps over as many steps as there are rows there (it reads the size before it swaps the two axes), and
    tf2onnx gives the same. Each step's rows are computed alone, so one large batch of them is right.
    """
    keras = import_keras()
    kind, ops = keras.layers.TimeDistributed, keras.ops
    original = kind.call

    def call(self: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if isinstance(inputs.shape[1], int):
            return original(self, inputs, training=training, mask=mask)
        batch, time = ops.shape(inputs)[:2]
        options: dict[str, Any] = {}
        if self.layer._call_has_mask_arg and mask is not None:
            options["mask"] = ops.reshape(mask, (-1, *mask.shape[2:]))
        if self.layer._call_has_training_arg:
            options["training"] = training
        rows = self.layer.call(ops.reshape(inputs, (-1, *ops.shape(inputs)[2:])), **options)
        return ops.reshape(rows, (batch, time, *ops.shape(rows)[1:]))

    kind.call = call
    try:
        yield
    finally:
        kind.call = original


FRAMEWORK = Keras()
