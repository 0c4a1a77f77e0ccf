"""ONNX models as sources to hold others against: two conversions, two precisions, one model on two providers."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import onnx

from onnxtool.converters.framework import Conversion, ConvertOptions, Framework
from onnxtool.errors import ConversionError, ModelError
from onnxtool.models.artifact import OnnxModel
from onnxtool.models.signature import Tensors
from onnxtool.models.source import LoadOptions, SourceModel

_IR_VERSION = b"\x08"  # the first field of every ModelProto


class OnnxFramework(Framework):
    """ONNX. Its models are loaded, never converted."""

    name = "onnx"
    extra = "cpu"
    max_opset = default_opset = onnx.defs.onnx_opset_version()

    def recognises(self, source: str) -> bool:
        """Whether a file parses as an ONNX model."""
        path = Path(source)
        if not path.is_file():
            return False
        with path.open("rb") as file:
            if file.read(1) != _IR_VERSION:
                return False
        try:
            OnnxModel.read(path)
        except ModelError:
            return False
        return True

    def owns(self, model: object) -> bool:
        """Whether it is an open ONNX file."""
        return isinstance(model, OnnxModel)

    def load(self, source: str, options: LoadOptions) -> object:
        """Open the file."""
        return OnnxModel.read(source)

    def wrap(self, model: object, options: LoadOptions) -> SourceModel:
        """Run it on the provider that the options name."""
        from onnxtool.validators.onnx_source import OnnxSource

        return OnnxSource(cast(OnnxModel, model), options.provider)

    def convert(self, source: SourceModel, example: Tensors, options: ConvertOptions) -> Conversion:
        """There is nothing to convert.

        Raises:
            ConversionError: always.
        """
        raise ConversionError(
            f"{source.path} is an ONNX model already. Use onnxtool verify to hold another model against it."
        )


FRAMEWORK = OnnxFramework()
