"""Programs that rewrite a graph so that it computes the same with less: onnxsim, onnxslim, ONNX Runtime itself.

None is trusted: `onnxtool.api.optimizing` measures what each one writes.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import onnx

from onnxtool.errors import ConversionError, OnnxtoolError, require
from onnxtool.models.onnx.artifact import all_nodes, first_line, fits_inline
from onnxtool.models.onnx.isolated import is_isolated, rewrite_isolated

Optimize: TypeAlias = Literal["none", "basic", "full"]

WORKER = "onnxtool.converters.graph.optimizer_worker"

STANDARD = ("", "ai.onnx", "ai.onnx.ml")
"""Domains of operators that every runtime may know."""

_MOST_ENDS = 2_000
"""Inputs and outputs of a model for onnxslim, which takes half a minute to tidy up 4,000."""


@dataclass(frozen=True, slots=True)
class Optimizer:
    """A program that rewrites graphs.

    Attributes:
        name: For the report.
        run: Gets a model, which it leaves as it is, and returns another.
    """

    name: str
    run: Callable[[onnx.ModelProto], onnx.ModelProto]


def optimizers(level: Optimize) -> Sequence[Optimizer]:
    """The optimisers to try.

    Args:
        level: `basic`: those that keep to ONNX's own operators. `full`: ONNX Runtime's extended optimisations too,
            which write operators that only ONNX Runtime has.
    """
    if level == "none":
        return ()
    portable = (
        Optimizer("onnxsim", _onnxsim),
        Optimizer("onnxslim", _onnxslim),
        Optimizer("ONNX Runtime, basic", lambda model: runtime_graph(model, "ORT_ENABLE_BASIC")),
    )
    # Extended stops short of layouts that depend on this machine's processor.
    extended = Optimizer("ONNX Runtime, extended", lambda model: runtime_graph(model, "ORT_ENABLE_EXTENDED"))
    return portable if level == "basic" else (*portable, extended)


def rewrite(model: onnx.ModelProto, optimizer: Optimizer) -> onnx.ModelProto:
    """The model as an optimiser rewrites it, with its metadata, names and opsets restored.

    Within `isolated` it runs in a process of its own: it computes what is constant, and a model may ask for anything.
    Inputs, outputs and their dimensions, metadata and producer are the model's; operator sets that no node uses
    are left out.

    Args:
        model: The model, with its weights; it is not changed.
        optimizer: The optimiser.

    Raises:
        ConversionError: the optimiser fails, or writes a model that is not valid or has other inputs or outputs.
        MissingExtraError: it is not installed.
    """
    if not fits_inline(model):
        raise ConversionError("It takes no model above 2 GB.")
    try:
        if is_isolated():
            content = rewrite_isolated(WORKER, {"optimizer": optimizer.name}, model.SerializeToString())
            rewritten = onnx.load_from_string(content)
        else:
            rewritten = optimized(model, optimizer)
    except OnnxtoolError:
        raise
    except Exception as error:  # each has exceptions of its own, from C++ too
        raise ConversionError(f"It fails: {first_line(error)}") from error
    restore(rewritten, model)
    return rewritten


def optimized(model: onnx.ModelProto, optimizer: Optimizer) -> onnx.ModelProto:
    """What an optimiser makes of a model, in this process and without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optimizer.run(model)


def restore(rewritten: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Give a rewritten model, in place, what is no business of who rewrote it; see `rewrite`.

    Raises:
        ConversionError: it is not valid, or has other inputs or outputs than the model.
    """
    for place in ("input", "output"):
        before, after = getattr(model.graph, place), getattr(rewritten.graph, place)
        names = [
            [(value.name, value.type.tensor_type.elem_type) for value in values] for values in (before, after)
        ]
        if names[0] != names[1]:
            raise ConversionError(f"It changes the model's {place}s.")
        after.MergeFrom(before)
        del after[: len(before)]
    del rewritten.metadata_props[:]
    rewritten.metadata_props.extend(model.metadata_props)
    for name in ("producer_name", "producer_version", "doc_string", "model_version", "domain"):
        setattr(rewritten, name, getattr(model, name))
    used = {node.domain for node in all_nodes(rewritten.graph)} | {"", "ai.onnx"}
    used |= {node.domain for function in rewritten.functions for node in function.node}
    kept = [entry for entry in rewritten.opset_import if entry.domain in used]
    del rewritten.opset_import[:]
    rewritten.opset_import.extend(kept)
    try:
        onnx.checker.check_model(rewritten)
    except onnx.checker.ValidationError as error:
        raise ConversionError(f"It writes an invalid model: {first_line(error)}") from error


def foreign_operators(model: onnx.ModelProto) -> list[str]:
    """Operators that are neither ONNX's own nor functions of the model, as `com.microsoft.FusedConv`."""
    known = {*STANDARD, *(function.domain for function in model.functions)}
    return sorted({f"{node.domain}.{node.op_type}" for node in all_nodes(model.graph) if node.domain not in known})


def runtime_graph(model: onnx.ModelProto, level: str) -> onnx.ModelProto:
    """The graph that ONNX Runtime makes of a model when it opens it.

    Args:
        model: The model.
        level: Name of a `GraphOptimizationLevel`.
    """
    runtime = require("onnxruntime", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "model.onnx"
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(written)
        runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(written)


def _onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    simplified: onnx.ModelProto = require("onnxsim", "optimize").simplify(model)[0]
    return simplified


def _onnxslim(model: onnx.ModelProto) -> onnx.ModelProto:
    ends = len(model.graph.input) + len(model.graph.output)
    if ends > _MOST_ENDS:
        raise ConversionError(
            f"It would compare each of {ends:,} inputs and outputs with every other, for minutes: "
            f"it gets models with {_MOST_ENDS:,} at most."
        )
    slimmed: onnx.ModelProto = require("onnxslim", "optimize").slim(model)
    return slimmed
