"""An ONNX graph opened up: run with its intermediate tensors as outputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import inliner

from onnxtool.errors import ModelError, require
from onnxtool.models.onnx.artifact import INLINE_LIMIT, OnnxModel, first_line, fits_inline
from onnxtool.models.onnx.isolated import is_isolated, open_isolated
from onnxtool.models.signature import Tensors


def whole(model: OnnxModel) -> onnx.ModelProto | None:
    """The model with its weights and without local functions; None where it is too large for that."""
    if model.size_bytes >= INLINE_LIMIT:  # found out without reading it
        return None
    proto = model.load()  # the one that OnnxModel holds lacks external data
    if not fits_inline(proto):
        return None
    return inliner.inline_local_functions(proto) if proto.functions else proto


def intermediate(graph: onnx.GraphProto) -> list[str]:
    """Names of the tensors that nodes make, in the order of the nodes."""
    return [name for node in graph.node for name in node.output if name]


def exposing(proto: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy of a model whose outputs are these tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    declared = {value.name: value for value in proto.graph.output}
    del copy.graph.output[:]
    copy.graph.output.extend(declared.get(name) or onnx.ValueInfoProto(name=name) for name in names)
    return copy


def open_session(proto: onnx.ModelProto, *, optimized: bool = True) -> Any:
    """An `onnxruntime.InferenceSession` of a model in memory, on the CPU.

    Raises:
        ModelError: ONNX Runtime refuses it.
    """
    runtime = require("onnxruntime", "cpu")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        if is_isolated():
            return open_isolated(proto.SerializeToString(), optimized=optimized, severity=4)
        return runtime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except ModelError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise ModelError(f"ONNX Runtime refuses a copy of the model: {first_line(error)}") from error


def evaluate(session: Any, feeds: Tensors) -> Tensors:
    """Every output of a session by name; what is no tensor is left out.

    Raises:
        ModelError: ONNX Runtime fails on it.
    """
    names = [output.name for output in session.get_outputs()]
    try:
        values = session.run(names, feeds)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"ONNX Runtime fails to run a copy of the model: {first_line(error)}") from error
    return {name: value for name, value in zip(names, values, strict=True) if isinstance(value, np.ndarray)}


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value, as Python has it."""
    for entry in node.attribute:
        if entry.name == name:
            return onnx.helper.get_attribute_value(entry)
    return default


def zipmap_classes(node: onnx.NodeProto) -> list[str]:
    """The classes of a ZipMap, as text, in the order of its columns."""
    texts = [name.decode() for name in attribute(node, "classlabels_strings", ())]
    return [*texts, *map(str, attribute(node, "classlabels_int64s", ()))]
