"""An ONNX model as the truth that its repaired copy is held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.converters.repairs import zipmap_classes
from onnxtool.errors import UsageError
from onnxtool.models.artifact import OnnxModel
from onnxtool.models.domain import Domain
from onnxtool.models.inputs import graph_domains
from onnxtool.models.signature import DTYPES, Tensors
from onnxtool.models.source import SourceModel


class OnnxSource(SourceModel):
    """An ONNX model that ONNX Runtime runs.

    Raises:
        ModelError: ONNX Runtime refuses it.
        UsageError: it takes or gives what is no tensor and no map.
    """

    framework = "onnx"

    def __init__(self, model: OnnxModel) -> None:
        self.model = model
        self.path = model.path
        self.framework_version = str(model.proto.ir_version)
        self.inputs = model.inputs
        self._session = model.session()
        self._classes = {
            node.output[0]: zipmap_classes(node) for node in model.proto.graph.node if node.op_type == "ZipMap"
        }
        for spec in (*model.inputs, *model.outputs):
            foreign = spec.dtype not in DTYPES and spec.name not in self._classes
            if foreign or (spec in model.inputs and spec.dtype == "bfloat16"):  # which Python cannot feed
                raise UsageError(
                    f"{spec.name!r} is of type {spec.dtype}, so the repaired model cannot be verified."
                )

    def domains(self) -> Mapping[str, Domain]:
        """What the graph says of its inputs."""
        return graph_domains(self.model.proto)

    def predict(self, tensors: Tensors) -> Tensors:
        """Run the model; maps become rows of a matrix, in the order of their classes."""
        found = self.model.predict(self._session, tensors)
        return {name: self._matrix(name, value) for name, value in found.items()}

    def _matrix(self, name: str, value: Any) -> NDArray[Any]:
        if name not in self._classes:
            return np.asarray(value)
        rows = [{str(key): number for key, number in row.items()} for row in value]
        return np.array([[row[label] for label in self._classes[name]] for row in rows], dtype=np.float32)
