"""Keras 3 to ONNX: the model is traced as a TensorFlow function."""

from __future__ import annotations

import sys
from pathlib import Path

from onnxtool.converters.framework import Conversion, ConvertOptions, Framework
from onnxtool.converters.tensorflow import MAX_OPSET, convert_function
from onnxtool.models.keras import KerasModel, is_keras_file, load_keras, reset_states
from onnxtool.models.signature import Tensors
from onnxtool.models.source import LoadOptions, SourceModel


class Keras(Framework):
    """`.keras` and `.h5` files, and live Keras models."""

    name = "keras"
    extra = "keras"
    max_opset = MAX_OPSET
    default_opset = MAX_OPSET

    def recognises(self, source: str) -> bool:
        """Whether a path is an archive that Keras wrote, or an HDF5 file."""
        return is_keras_file(Path(source))

    def owns(self, model: object) -> bool:
        """Whether it is a `keras.Model`."""
        keras = sys.modules.get("keras")
        return keras is not None and isinstance(model, keras.Model)

    def load(self, source: str, options: LoadOptions) -> object:
        """Load a model in safe mode; see `models.keras`."""
        return load_keras(Path(source), options)

    def wrap(self, model: object, options: LoadOptions) -> SourceModel:
        """See a Keras model as a source model."""
        return KerasModel(model, options)

    def convert(self, source: SourceModel, example: Tensors, options: ConvertOptions) -> Conversion:
        """Convert; see `convert_function`. States of recurrent layers start at zero."""
        assert isinstance(source, KerasModel)  # noqa: S101 -- what `wrap` returned
        reset_states(source.model)
        return convert_function(source.call, source.inputs, source.outputs, options.opset or self.default_opset)


FRAMEWORK = Keras()
