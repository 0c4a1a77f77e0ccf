"""The ONNX model as a file: reading, describing, running."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PureWindowsPath
from types import MappingProxyType
from typing import Any

import onnx
from google.protobuf.message import DecodeError, EncodeError

from onnxtool.errors import ModelError, StrayWeightsError, require
from onnxtool.models.onnx import settings
from onnxtool.models.onnx.isolated import is_isolated, open_isolated
from onnxtool.models.safety.onnx_file import fault_of, locations_of, tensors_of
from onnxtool.models.signature import BATCH, Dim, Tensors, TensorSpec
from onnxtool.models.source import sha256
from onnxtool.reports.model import ModelSummary, Tensor

COLUMNS = "onnxtool.columns."
"""With an input's name, the metadata that has the names of the matrix's columns, as a list in JSON."""

ROWS = "onnxtool.rows"
"""The metadata that has the dtypes of the rows on which the model was proved, by input, as JSON."""

BOUNDS = "onnxtool.bounds"
"""The metadata that has the bounds of dynamic dimensions, by name, as JSON: `{"length": [2, null]}`."""

INLINE_LIMIT = 2**31 - 1
"""A protobuf message cannot be larger; larger weights are stored in files next to the model."""


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX model in a file.

    Attributes:
        path: The file.
        proto: Its content, without external data.
    """

    path: Path
    proto: onnx.ModelProto

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> OnnxModel:
        """Open an ONNX file and check that it is one.

        Raises:
            ModelError: there is no such file, or it is damaged or not ONNX.
            StrayWeightsError: it names files outside of its folder.
        """
        path = Path(path)
        if not path.is_file():
            raise ModelError(f"{path}: no such file.")
        if path.stat().st_size == 0:
            raise ModelError(f"{path} is empty. Convert the model again.")
        try:
            proto = onnx.load(path, load_external_data=False)
        except (DecodeError, ValueError, RuntimeError) as error:
            raise ModelError(f"{path} is no ONNX model, or is cut short: it cannot be parsed.") from error
        if not proto.HasField("graph") or not proto.opset_import or not proto.graph.output:
            raise ModelError(f"{path} is no ONNX model, or is cut short: it has no graph with outputs.")
        if any(isinstance(text, bytes) for text in _texts(proto)):  # what protobuf makes of what is no UTF-8
            raise ModelError(f"{path} is damaged: a name in it is no text.")
        if fault := fault_of(proto):
            raise ModelError(f"{path} {fault}.")
        model = cls(path, proto)
        if strays := [name for name in model.locations if not model._lies_inside(name)]:
            raise StrayWeightsError(
                f"{path} keeps weights in {strays[0]!r}, outside of its folder; nothing was read there. "
                "Save it together with its weights."
            )
        return model

    def load(self) -> onnx.ModelProto:
        """The content with external data.

        Raises:
            ModelError: some is missing or cut short, or lies where ONNX does not read (a hard link, for one).
        """
        try:
            return onnx.load(self.path)
        except (
            onnx.checker.ValidationError,
            OSError,
            ValueError,
            OverflowError,
            MemoryError,
            RuntimeError,
        ) as error:
            raise ModelError(f"The weights of {self.path} cannot be read: {first_line(error)}") from error

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs that must be fed: those with an initializer have a default."""
        defaults = {tensor.name for tensor in self.proto.graph.initializer}
        found = [_spec(value) for value in self.proto.graph.input if value.name not in defaults]
        columns = {name: self.metadata.get(f"{COLUMNS}{name}") for name in (spec.name for spec in found)}
        return tuple(replace(spec, columns=_names(columns[spec.name])) for spec in found)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """All outputs, in order."""
        return tuple(_spec(value) for value in self.proto.graph.output)

    @cached_property
    def locations(self) -> list[str]:
        """Names of the files of external data, relative to its folder."""
        return sorted(
            {
                name
                for tensor in tensors_of(self.proto)
                if tensor.data_location == onnx.TensorProto.EXTERNAL
                for name in locations_of(tensor)
            }
        )

    @cached_property
    def files(self) -> list[Path]:
        """The file itself, then those of its external data that there are."""
        found = (self.path.parent / name for name in self.locations)
        return [self.path, *(file for file in found if file.is_file())]

    @property
    def size_bytes(self) -> int:
        """Size of all of its files."""
        return sum(file.stat().st_size for file in self.files)

    def _lies_inside(self, location: str) -> bool:
        """Whether external data lies in the model's folder or below it, with links resolved."""
        folders = (self.path.parent.resolve(), self.path.resolve().parent)
        plain = PureWindowsPath(location)  # whose separators and roots include all others
        if not location or "\0" in location or plain.anchor or ".." in plain.parts:
            return False
        return any((self.path.parent / location).resolve().is_relative_to(folder) for folder in folders)

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The model's metadata properties."""
        return {entry.key: entry.value for entry in self.proto.metadata_props}

    def session(self, options: Mapping[str, str] = MappingProxyType({})) -> Any:
        """An `onnxruntime.InferenceSession` of this file on the CPU, without the runtime's chatter.

        Args:
            options: Of the session, as `settings` has them.

        Raises:
            MissingExtraError: ONNX Runtime is not installed.
            ModelError: ONNX Runtime refuses the model.
        """
        runtime = require("onnxruntime", "cpu")
        session_options = runtime.SessionOptions()
        session_options.log_severity_level = 3
        settings.apply(options, session_options)
        try:
            if is_isolated():
                return open_isolated(self.path, files=self.files, options=options, severity=3)
            return runtime.InferenceSession(str(self.path), session_options, providers=["CPUExecutionProvider"])
        except ModelError as error:
            raise ModelError(f"{self.path}: {error}") from error
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            why = f"ONNX Runtime refuses {self.path}: {first_line(error)}"
            if "NOT_IMPLEMENTED" in why and _in_bfloat16(self.proto.graph):
                why += (
                    "\nThe model computes in bfloat16, for which the runtime has few kernels. Convert it in float32, "
                    "which holds the same weights; of PyTorch: model.float()."
                )
            raise ModelError(why) from error

    def predict(self, session: Any, tensors: Tensors) -> Tensors:
        """Run one batch.

        Raises:
            ModelError: ONNX Runtime fails on it.
        """
        names = [spec.name for spec in self.outputs]
        try:
            values = session.run(names, tensors)
        except ModelError as error:
            raise ModelError(f"{self.path}: {error}") from error
        except Exception as error:
            raise ModelError(f"ONNX Runtime fails to run {self.path}: {first_line(error)}") from error
        return dict(zip(names, values, strict=True))

    def summary(self) -> ModelSummary:
        """Describe the model, for `inspect` and for reports."""
        graph = self.proto.graph
        return ModelSummary(
            path=str(self.path),
            sha256=sha256(self.path),
            size_bytes=self.size_bytes,
            ir_version=self.proto.ir_version,
            opsets={entry.domain or "ai.onnx": entry.version for entry in self.proto.opset_import},
            producer=f"{self.proto.producer_name} {self.proto.producer_version}".strip(),
            inputs=[_tensor(spec) for spec in self.inputs],
            outputs=[_tensor(spec) for spec in self.outputs],
            operators=dict(Counter(_operator(node) for node in all_nodes(graph)).most_common()),
            parameters=sum(math.prod(tensor.dims) for tensor in graph.initializer),
            metadata=self.metadata,
        )


def _texts(proto: onnx.ModelProto) -> Iterator[str | bytes]:
    """Every name in a model, as protobuf gives it."""
    yield proto.producer_name
    yield proto.producer_version
    for entry in proto.metadata_props:
        yield from (entry.key, entry.value)
    yield from (entry.domain for entry in proto.opset_import)
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    yield from (tensor.name for tensor in all_tensors(proto.graph))
    for node in all_nodes(proto.graph):
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)


def fits_inline(proto: onnx.ModelProto) -> bool:
    """Whether a model fits one protobuf message. The weights of a larger model must be in files next to it."""
    try:
        return proto.ByteSize() < INLINE_LIMIT
    except EncodeError:  # raised by protobuf above its limit
        return False


def size_of(proto: onnx.ModelProto) -> int:
    """Bytes of a model with its weights; beyond what one protobuf message holds, of its weights alone."""
    if fits_inline(proto):
        return proto.ByteSize()
    return sum(tensor.ByteSize() for tensor in all_tensors(proto.graph))


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node of a graph and of the graphs inside its nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for inner in attribute.graphs:
                    yield from all_nodes(inner)


def _in_bfloat16(graph: onnx.GraphProto) -> bool:
    casts = (attribute.i for node in all_nodes(graph) for attribute in node.attribute if attribute.name == "to")
    kinds = (tensor.data_type for tensor in all_tensors(graph))
    return onnx.TensorProto.BFLOAT16 in (*casts, *kinds)


def all_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every initializer and constant of a graph and of the graphs inside its nodes."""
    yield from graph.initializer
    for node in all_nodes(graph):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from inner.initializer


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for a message of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:500]


_DTYPES = {number: name for name, number in onnx.TensorProto.DataType.items()}


def _operator(node: onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def _tensor(spec: TensorSpec) -> Tensor:
    return Tensor(name=spec.name, dtype=spec.dtype, shape=list(spec.shape))


def _names(text: str | None) -> tuple[str, ...]:
    try:
        names = json.loads(text or "[]")
    except ValueError:  # written by another program
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def rows_proved_on(metadata: Mapping[str, str]) -> dict[str, str]:
    """Dtypes, by input, of the rows on which `convert` proved a model; empty where it says none."""
    try:
        found = json.loads(metadata.get(ROWS, "{}"))
    except ValueError:  # a stranger's
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {name: dtype for name, dtype in pairs if dtype in ("float32", "float64")}


def bounds_of(metadata: Mapping[str, str]) -> dict[str, tuple[int | None, int | None]]:
    """The smallest and largest size of dynamic dimensions for which `convert` wrote a model, where it says so."""
    try:
        found = json.loads(metadata.get(BOUNDS, "{}"))
    except ValueError:  # a stranger's
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {
        name: (limits[0], limits[1])
        for name, limits in pairs
        if isinstance(limits, list) and len(limits) == 2 and all(x is None or type(x) is int for x in limits)
    }


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return TensorSpec(value.name, (kind or "unknown").removesuffix("_type"), ())
    tensor = value.type.tensor_type
    dtype = _DTYPES.get(tensor.elem_type, f"dtype {tensor.elem_type}").lower()
    dims: list[Dim] = []
    for position, dim in enumerate(tensor.shape.dim):
        if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0:
            dims.append(dim.dim_value)
        else:
            dims.append(dim.dim_param or (BATCH if position == 0 else f"dim_{position}"))
    names = {"float": "float32", "double": "float64"}
    return TensorSpec(value.name, names.get(dtype, dtype), tuple(dims))
