"""An ONNX model as the source that another ONNX model is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import UsageError
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.onnx.double import evaluate_in_double
from onnxtool.models.onnx.evaluate import evaluate, exposing, intermediate, open_session, whole, zipmap_classes
from onnxtool.models.onnx.providers import CPU, session_on
from onnxtool.models.onnx.settings import full_name
from onnxtool.models.rows.domain import Domain
from onnxtool.models.rows.inputs import graph_domains
from onnxtool.models.signature import DTYPES, Role, Tensors
from onnxtool.models.source import SourceModel, Step


class OnnxSource(SourceModel):
    """An ONNX model that ONNX Runtime runs.

    Args:
        model: The model.
        provider: Execution provider that runs it: `cpu`, `cuda` or a full name.

    Raises:
        ModelError: ONNX Runtime refuses it.
        UsageError: it takes or gives what is no tensor and no map, or the provider cannot be used here.
    """

    framework = "onnx"

    def __init__(self, model: OnnxModel, provider: str = "cpu") -> None:
        self.model = model
        self.path = model.path
        self.framework_version = str(model.proto.ir_version)
        self.inputs = model.inputs
        self.provider = full_name(provider)
        self._session, self.notes = session_on(model, self.provider)
        self._classes = {
            node.output[0]: zipmap_classes(node) for node in model.proto.graph.node if node.op_type == "ZipMap"
        }
        for specs, unfit in ((model.inputs, {"bfloat16"}), (model.outputs, set())):  # which Python cannot feed
            for spec in specs:
                if spec.name not in self._classes and (spec.dtype not in DTYPES or spec.dtype in unfit):
                    raise UsageError(
                        f"{model.path}: {spec.name!r} is of type {spec.dtype}, so it cannot be compared."
                    )
        self.roles = dict(_roles(model))

    @property
    def kind(self) -> str:
        """The operator sets, and the provider where it is not the CPU."""
        opsets = ", ".join(
            f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in self.model.proto.opset_import
        )
        return opsets if self.provider == CPU else f"{opsets} on {self.provider}"

    def domains(self) -> Mapping[str, Domain]:
        """The domains of the inputs, from the graph."""
        return graph_domains(self.model.proto)

    def steps(self, tensors: Tensors) -> Iterator[Step]:
        """Every node's outputs, under their own names, without ONNX Runtime's optimisations."""
        proto = whole(self.model)
        if proto is None:
            return
        kinds = {name: node.op_type for node in proto.graph.node for name in node.output}
        session = open_session(exposing(proto, intermediate(proto.graph)), optimized=False)
        for name, value in evaluate(session, tensors).items():
            yield Step(name, kinds[name], value)

    def in_double(self, tensors: Tensors) -> Tensors | None:
        """The outputs of the graph in float64."""
        proto = whole(self.model)
        found = evaluate_in_double(proto, tensors) if proto is not None else {}
        return {spec.name: found[spec.name] for spec in self.model.outputs if spec.name in found} or None

    def predict(self, tensors: Tensors) -> Tensors:
        """Run the model; maps become rows of a matrix, in the order of their classes."""
        found = self.model.predict(self._session, tensors)
        return {name: self._matrix(name, value) for name, value in found.items()}

    def _matrix(self, name: str, value: Any) -> NDArray[Any]:
        if name not in self._classes:
            return np.asarray(value)
        rows = [{str(key): number for key, number in row.items()} for row in value]
        return np.array([[row[label] for label in self._classes[name]] for row in rows], dtype=np.float32)


# Names that converters give a classifier's outputs, ours and those of skl2onnx and onnxmltools.
_LABELS = {"label", "output_label"}
_PROBABILITIES = {"probabilities", "output_probability"}


def _roles(model: OnnxModel) -> Iterator[tuple[str, Role]]:
    """The roles of the outputs, by their names, or by the softmax that they come from."""
    makers = {name: node for node in model.proto.graph.node for name in node.output}
    for spec in model.outputs:
        maker = makers.get(spec.name)
        if spec.name in _LABELS and spec.dtype in ("int64", "string"):
            yield spec.name, "label"
        elif spec.name in _PROBABILITIES or (
            maker is not None and maker.op_type == "Softmax" and len(spec.shape) == 2
        ):
            yield spec.name, "probabilities"
