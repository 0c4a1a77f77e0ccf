"""ONNX models as sources: to be optimised, lowered in precision, or compared with other models."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import onnx
from onnx import version_converter

from onnxtool.converters.framework import Conversion, ConvertOptions, Framework
from onnxtool.converters.graph.finish import default_opset
from onnxtool.errors import ConversionError, ModelError, StrayWeightsError
from onnxtool.models.onnx.artifact import OnnxModel, first_line
from onnxtool.models.signature import Tensors
from onnxtool.models.source import LoadOptions, SourceModel

_IR_VERSION = b"\x08"  # the first field of every ModelProto


class OnnxFramework(Framework):
    """ONNX."""

    name = "onnx"
    extra = "cpu"
    max_opset = default_opset = onnx.defs.onnx_opset_version()
    keeps_opset = True
    confined = False  # ONNX Runtime, which is to run the result, is in this process as it is

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
        except StrayWeightsError:  # which `load` is to say
            return True
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
        from onnxtool.models.onnx.source import OnnxSource

        return OnnxSource(cast(OnnxModel, model), options.provider)

    def convert(self, source: SourceModel, example: Tensors, options: ConvertOptions) -> Conversion:
        """The model itself, with its weights; in another opset where the options give one.

        Raises:
            ConversionError: ONNX's version converter cannot change the opset.
        """
        proto = cast(OnnxModel, source.model).load()
        if options.opset is None or options.opset == default_opset(proto):
            return Conversion(proto)
        try:
            return Conversion(version_converter.convert_version(proto, options.opset))
        except Exception as error:  # what its C++ core throws
            raise ConversionError(f"ONNX's version converter fails: {first_line(error)}") from error


FRAMEWORK = OnnxFramework()
