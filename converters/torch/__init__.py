"""PyTorch to ONNX through `torch.onnx.export`: modules, exported programs, TorchScript."""

from __future__ import annotations

import inspect
import io
import linecache
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import onnx

from onnxtool.converters.framework import Conversion, ConvertOptions, Framework
from onnxtool.converters.graph.finish import default_opset
from onnxtool.converters.torch import attention, operators, packed, recurrent
from onnxtool.errors import ConversionError, SourceError, UsageError
from onnxtool.models.onnx.artifact import first_line
from onnxtool.models.rows.batches import Batching, row_dimension
from onnxtool.models.rows.data import count_rows
from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.models.source import LoadOptions, SourceModel
from onnxtool.models.torch import TorchSource, build, evaluating, named_tensors
from onnxtool.models.torch.files import exported_by, kind_of, quiet, read_export, read_torchscript
from onnxtool.models.torch.hugging_face import folder_kind, read_folder
from onnxtool.models.versions import saved_by
from onnxtool.reports.model import SavedBy

_CALLABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
# Measured with torch 2.13: beyond, its exporters leave it to ONNX's version converter, which stops half way.
_MAX_OPSET = 25
_TORCHLIB_OPSET = 18
_TORCHSCRIPT_MAX_OPSET = 20
_LONGEST = 8192  # of sizes beyond a bound that are tried
_LIBRARIES = ("torch", "onnxscript", "onnx_ir", "onnxtool")
# Source lines and paths of the machine that exported: of no use to a reader of the model, and private.
_TRACES = ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node")
# What torch.export and torch.onnx say when they give up.
_UNSUPPORTED = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")
_SPECIALISED = re.compile(
    r"static shape of (?P<size>\d+) for dimension (?P<input>inputs\S*)\.shape\[(?P<axis>\d+)\]"
)
_DATA_DEPENDENT = {"GuardOnDataDependentSymNode", "DataDependentOutputException"}


class Torch(Framework):
    """PyTorch."""

    name = "torch"
    extra = "torch"
    max_opset = _MAX_OPSET
    default_opset = 20

    def recognises(self, source: str) -> bool:
        """A `.pt2` or TorchScript archive, a file of `torch.save`, a folder of transformers, or a callable's name."""
        path = Path(source)
        if folder_kind(path) is not None:
            return True
        return kind_of(path) is not None if path.exists() else bool(_CALLABLE.fullmatch(source))

    def owns(self, model: object) -> bool:
        """A module, a `ScriptModule` or an `ExportedProgram`; a Keras model on PyTorch is Keras's."""
        torch = sys.modules.get("torch")
        if torch is None or any(kind.__module__.partition(".")[0] == "keras" for kind in type(model).__mro__):
            return False
        return isinstance(model, torch.nn.Module | torch.export.ExportedProgram)

    def load(self, source: str, options: LoadOptions) -> object:
        """Open a file, or call the callable; see `models.torch_files` and `models.torch.build`."""
        path = Path(source)
        if not path.exists():
            return build(source, options.weights)
        if options.weights is not None:
            raise UsageError(f"--weights goes with package.module:callable; {source} has its own weights.")
        if folder_kind(path) is not None:
            with quiet():
                return read_folder(path, options.base)
        kind = kind_of(path)
        if kind == "export":
            return read_export(path, options.trust)
        if kind == "torchscript":
            return read_torchscript(path, options.trust)
        if kind == "weights":
            raise SourceError(
                f"{source} is a file of torch.save: weights or a pickled module, without the code to build it.\n"
                f"Name a callable that builds the module: package.module:callable --weights {source}"
            )
        raise SourceError(f"{source} is a PyTorch file that is cut short or damaged. Save or copy it again.")

    def saved_by(self, source: str, model: object) -> list[SavedBy]:
        """PyTorch's release, which `.pt2` archives name."""
        path = Path(source)
        version = exported_by(path) if kind_of(path) == "export" else None
        return [saved_by("torch", version, sys.modules["torch"].__version__, "major")] if version else []

    def wrap(self, model: object, options: LoadOptions) -> SourceModel:
        """Wrap a model as a function of named tensors."""
        return TorchSource(model, options)

    def convert(self, source: SourceModel, example: Tensors, options: ConvertOptions) -> Conversion:
        """Export, with every named dimension dynamic; a model that forbids a dynamic batch gets the example's."""
        import torch

        opset = options.opset or self.default_opset
        example = {spec.name: example[spec.name] for spec in source.inputs}
        convert = _from_torchscript if isinstance(source.model, torch.jit.ScriptModule) else from_module
        conversion = convert(source, example, opset)
        reached = default_opset(conversion.model)
        if reached != opset:  # the exporter only logs that its version converter gave up
            raise ConversionError(
                f"PyTorch's exporter cannot write this model in opset {opset}: it stays at {reached}. "
                f"Use --opset {max(reached, _TORCHLIB_OPSET)} to {_MAX_OPSET}."
            )
        return conversion


FRAMEWORK = Torch()


# -- Modules and exported programs --------------------------------------------------------------------------


def from_module(source: Any, example: Tensors, opset: int) -> Conversion:
    """Export with every named dimension dynamic, or else with the number of rows fixed to the example's.

    Args:
        source: A `TorchSource`.
        example: Rows to trace with.
        opset: Version of the default operator set.

    Raises:
        ConversionError: the exporter gives up.
    """
    specs, given = source.inputs, example
    if count_rows(example, specs) == 1:  # PyTorch may take a single row for one to broadcast
        example = _one_more(example, specs, rows=True) or example
    output = source.run(example)
    names = list(named_tensors(output, example))
    longer = _one_more(example, specs, rows=False)
    if longer is not None and _runs(source, longer):  # else the example is as long as the model allows
        example = longer  # what is exported at one length is then verified at another
    model = source.model if source.exported or _is_plain(source, output) else _flat(source)
    choices = []
    program, fault = _try_export(source, model, example, specs, opset, given=given)
    if fault is not None and source.sizes_of_rows not in ((), specs):
        source.inputs = source.sizes_of_rows
        conversion = from_module(source, given, opset)
        message = f"The inputs have the sizes of the rows, though the model takes others. {fault}"
        return replace(conversion, choices=[message, *conversion.choices])
    if fault is not None:
        if source.exported or row_dimension(specs) is None:
            raise ConversionError(fault)
        rows = count_rows(given, specs)
        example = Batching.of(specs).rows(example, 0, rows)
        specs = _with_rows(specs, rows)
        program, still = _try_export(source, model, example, specs, opset, given=given)
        if still is not None:
            raise ConversionError(fault)
        choices = [f"Exported for exactly {rows} rows, and not for any number. {fault}"]
    return Conversion(_finished(program, specs, names), choices)


def _one_more(example: Tensors, specs: Sequence[TensorSpec], rows: bool) -> Tensors | None:
    """The example with one row more, or with all other dynamic dimensions one longer; None when there are none."""
    longer, counting = dict(example), row_dimension(specs)
    for spec in specs:
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, str) and rows == (dim == counting):
                array = longer[spec.name]
                longer[spec.name] = np.concatenate([array, array.take([0], axis)], axis)
    return longer if any(longer[name] is not example[name] for name in example) else None


def _with_rows(specs: Sequence[TensorSpec], rows: int) -> tuple[TensorSpec, ...]:
    counting = row_dimension(specs)
    return tuple(
        replace(spec, shape=tuple(rows if dim == counting else dim for dim in spec.shape)) for spec in specs
    )


def _try_export(
    source: Any, model: Any, example: Tensors, specs: Sequence[TensorSpec], opset: int, *, given: Tensors
) -> tuple[Any, str | None]:
    """Run the exporter once.

    Args:
        source: A `TorchSource`.
        model: What is exported: its module, or one around it.
        example: Rows to trace with.
        specs: The inputs.
        opset: Version of the default operator set.
        given: The rows that the caller gave, whose sizes messages name.

    Returns:
        Its `ONNXProgram`, and what is wrong: None when every dimension is as dynamic as `specs` says.
    """
    import torch

    values = source.tensors({name: array.copy() for name, array in example.items()})
    sizes = {spec.name: {a: dim for a, dim in enumerate(spec.shape) if isinstance(dim, str)} for spec in specs}
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    dynamic: Any = list(sizes.values())
    if model is not source.model:
        args, dynamic = tuple(values.values()), {"tensors": tuple(dynamic)}
    elif not source.exported:  # whose dimensions are settled, and only named here
        args, kwargs = source.arguments(values)
        size_args, size_kwargs = source.arguments(sizes)
        dynamic = inspect.Signature(source.parameters).bind(*size_args, **size_kwargs).arguments

    own = (attention, operators, recurrent)
    try:
        with (
            quiet(),
            source.kept(),
            evaluating(source.module),
            torch.no_grad(),
            _weights_computed(source.module),
            recurrent.traced_by_shape(),
            recurrent.projections(),
            packed.exportable(),
            attention.unfused(),
            _unchecked_distributions(),
        ):
            program = torch.onnx.export(
                model,
                args,
                kwargs=kwargs,
                dynamic_shapes=dynamic,
                opset_version=opset,
                custom_translation_table=dict(item for module in own for item in module.translations().items()),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter and the user's module raise what they like
        return None, _explain(error, source, given)
    return program, _undone(program, specs, given, source.exported) or _branch(program, source, given, specs)


@contextmanager
def _unchecked_distributions() -> Iterator[None]:
    """Leave out the checks of their arguments that `torch.distributions` make: branches on values."""
    from torch.distributions import Distribution

    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


@contextmanager
def _weights_computed(module: Any) -> Iterator[None]:
    """Compute weights that are parametrised, as by `orthogonal` or `weight_norm`, before the trace and not in it."""
    from torch.nn.utils import parametrize

    with parametrize.cached():
        for part in module.modules():
            if parametrize.is_parametrized(part):
                for name in part.parametrizations:
                    getattr(part, name)
        yield


def _is_plain(source: Any, output: Any) -> bool:
    """Whether the exporter takes the module as it is: it knows neither dataclasses, nor numbers, nor **kwargs."""
    import torch
    from torch.utils import _pytree

    return all(leaf is None or isinstance(leaf, torch.Tensor) for leaf in _pytree.tree_leaves(output)) and all(
        parameter.kind is not parameter.VAR_KEYWORD for parameter in source.parameters
    )


def _flat(source: Any) -> Any:
    """A module from tensors to tensors around a module with richer arguments and results."""
    import torch

    class Flat(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = source.module

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            args, kwargs = source.arguments(dict(zip(names, tensors, strict=True)))
            return tuple(named_tensors(self.module(*args, **kwargs)).values())

    names = [spec.name for spec in source.inputs]
    flat = Flat()
    flat.training = False  # itself only: the module in it is the user's
    return flat


def _undone(program: Any, specs: Sequence[TensorSpec], given: Tensors, bounded: bool) -> str | None:
    """Dynamic dimensions that the exporter silently fixed, or restricted to some sizes.

    Args:
        program: What the exporter returned.
        specs: The inputs.
        given: The rows that the caller gave.
        bounded: Whether bounds are the user's own, as in `Dim("batch", max=64)`, and no sign of a branch.
    """
    from torch.utils._sympy.numbers import int_oo

    exported = program.exported_program
    placeholders = {node.name: node.meta["val"] for node in exported.graph.nodes if node.op == "placeholder"}
    inputs = [placeholders[name] for name in exported.graph_signature.user_inputs if name in placeholders]
    counting = row_dimension(specs)
    for spec, value in zip(specs, inputs, strict=True):
        for axis, dim in enumerate(spec.shape):
            if not isinstance(dim, str):
                continue
            if isinstance(value.shape[axis], int):
                return _fixed(spec, axis, given, dim == counting)
            bounds = exported.range_constraints.get(value.shape[axis].node.expr)
            if bounds is None:
                continue
            if bounds.lower == bounds.upper:
                return _fixed(spec, axis, given, dim == counting)
            if not bounded and dim == counting and (bounds.lower > 2 or bounds.upper != int_oo):
                limits = f"{bounds.lower} to {bounds.upper}".replace("to int_oo", "or more")
                return f"The model does something else with {limits} rows than with others."
    return None


def _branch(program: Any, source: Any, example: Tensors, specs: Sequence[TensorSpec]) -> str | None:
    """Where the source takes sizes of a dimension beyond those for which the exporter's trace holds.

    A bound of the source's own, as the length of its table of positions, is no branch: it refuses what is beyond.
    """
    from torch.utils._sympy.numbers import int_oo

    if source.exported:  # whose bounds are the user's own, as in Dim("length", max=64)
        return None
    exported = program.exported_program
    placeholders = {node.name: node.meta["val"] for node in exported.graph.nodes if node.op == "placeholder"}
    inputs = [placeholders[name] for name in exported.graph_signature.user_inputs if name in placeholders]
    counting = row_dimension(specs)
    for spec, value in zip(specs, inputs, strict=True):
        for axis, dim in enumerate(spec.shape):
            if not isinstance(dim, str) or dim == counting:
                continue
            bounds = exported.range_constraints.get(value.shape[axis].node.expr)
            if bounds is None:
                continue
            beyond = [] if bounds.upper == int_oo else [int(bounds.upper) + 1]
            beyond += [int(bounds.lower) - 1] if bounds.lower > 2 else []
            for size in beyond:
                if size <= _LONGEST and _runs(source, _resized(example, specs, dim, size)):
                    limits = f"{bounds.lower} to {bounds.upper}".replace("to int_oo", "or more")
                    shape = (*spec.shape[:axis], example[spec.name].shape[axis], *spec.shape[axis + 1 :])
                    return (
                        f"The model does something else where dimension {axis} of input {spec.name!r} is {size} than "
                        f"where it is {limits}. Give it the size of your rows, as in {_option(spec, shape)}"
                    )
    return None


def _resized(example: Tensors, specs: Sequence[TensorSpec], name: str, size: int) -> Tensors:
    """The example with a dimension of another size, its values cut or repeated."""
    found = dict(example)
    for spec in specs:
        for axis, dim in enumerate(spec.shape):
            if dim == name:
                array = found[spec.name]
                found[spec.name] = array.take(np.arange(size) % array.shape[axis], axis)
    return found


def _fixed(spec: TensorSpec, axis: int, given: Tensors, counts_rows: bool) -> str:
    text = f"The model computes with dimension {axis} of input {spec.name!r} as a fixed number."
    if counts_rows:
        return text
    shape = (*spec.shape[:axis], given[spec.name].shape[axis], *spec.shape[axis + 1 :])
    return f"{text} Give it the size of your rows, as in {_option(spec, shape)}"


def _option(spec: TensorSpec, shape: Sequence[object]) -> str:
    """The option that gives an input a shape."""
    return f"--input {spec.name}:{spec.dtype}[{','.join(map(str, shape))}]"


def _finished(program: Any, specs: Sequence[TensorSpec], names: Sequence[str]) -> onnx.ModelProto:
    """Name inputs and outputs, and leave out stale values and paths of the machine that exported.

    Args:
        program: What the exporter returned.
        specs: The inputs.
        names: Names of the outputs.
    """
    import onnx_ir as ir

    graph = program.model.graph
    if len(graph.inputs) != len(specs) or len(graph.outputs) != len(names):
        raise ConversionError(
            f"PyTorch's exporter made {len(graph.inputs)} inputs and {len(graph.outputs)} outputs of "
            f"{len(specs)} and {len(names)}. The model may return something other than tensors."
        )
    for value, spec in zip(graph.inputs, specs, strict=True):
        _rename(value, spec.name, graph)
    for position, name in enumerate(names):
        value = graph.outputs[position]
        if value.producer() is None:  # a constant, which has a name as a weight
            node = ir.node("Identity", [value])
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
            graph.append(node)
            graph.outputs[position] = node.outputs[0]
        _rename(graph.outputs[position], name, graph)
    for node in list(graph.all_nodes()):
        _keep_rank(node)
        _keep_layout(node)
        for trace in _TRACES:
            node.metadata_props.pop(trace, None)
    model: onnx.ModelProto = program.model_proto
    return model


def _keep_rank(node: Any) -> None:
    """Make a squeeze of a dimension that is not 1 do nothing, as in PyTorch; ONNX fails on it.

    The exporter writes one for each dynamic dimension, which the trace says stays.
    """
    if node.op_type == "Squeeze" and len(node.inputs) == 2:
        before, after = node.inputs[0].shape, node.outputs[0].shape
        if before is not None and after is not None and len(before) == len(after):
            node.op_type = "Identity"
            node.resize_inputs(1)


def _keep_layout(node: Any) -> None:
    """Keep ONNX Runtime from moving a transpose behind a cubic resize: it fails on channels that are last."""
    import onnx_ir as ir

    if node.op_type == "Resize" and (mode := node.attributes.get("mode")) and mode.value == "cubic":
        image = node.inputs[0]
        shape = ir.node("Constant", [], {"value_ints": [0] * len(image.shape)})
        same = ir.node("Reshape", [image, shape.outputs[0]])
        same.outputs[0].type, same.outputs[0].shape = image.type, image.shape
        node.graph.insert_before(node, [shape, same])
        node.replace_input_with(0, same.outputs[0])


def _rename(value: Any, name: str, graph: Any) -> None:
    """Name a value; another one that bears the name gives way."""
    inner = (output for node in graph.all_nodes() for output in node.outputs)
    for other in (*graph.inputs, *inner):
        if other.name == name and other is not value:
            other.name = f"{name}_inner"
    value.name = name


# -- TorchScript --------------------------------------------------------------------------------------------


def _from_torchscript(source: Any, example: Tensors, opset: int) -> Conversion:
    """Convert with PyTorch's older exporter: the current one refuses every `ScriptModule`."""
    import torch

    if opset > _TORCHSCRIPT_MAX_OPSET:
        raise ConversionError(
            f"TorchScript goes through PyTorch's older exporter, which stops at opset {_TORCHSCRIPT_MAX_OPSET}. "
            "Use that opset or a lower one, or save the model's source with torch.export.save and convert the .pt2."
        )
    specs = source.inputs
    output = source.run(example)
    names = list(named_tensors(output, example))
    choices = [
        "TorchScript is deprecated, and converted by PyTorch's older exporter. torch.export.save on the model's "
        "source makes a .pt2 file for the current one."
    ]
    more = _one_more(example, specs, rows=True)
    if more is not None and not _runs(source, more):  # a trace keeps the sizes that it was made with
        rows = count_rows(example, specs)
        specs = _with_rows(specs, rows)
        choices.append(f"Exported for exactly {rows} rows: the model fails with {rows + 1}.")
    values = tuple(source.tensors({name: array.copy() for name, array in example.items()}).values())
    content = io.BytesIO()
    try:
        with quiet(), source.kept(), evaluating(source.module), torch.no_grad(), attention.unfused():
            model = source.model
            if len(specs) < len(source.parameters) or not _is_plain(source, output):
                # Its scripts stay scripts within a trace; defaults would become inputs, and None fail.
                model = torch.jit.trace(_flat(source), values, check_trace=False)
            torch.onnx.export(
                model,
                values,
                content,
                input_names=[spec.name for spec in specs],
                output_names=names,
                dynamic_axes={
                    spec.name: {a: dim for a, dim in enumerate(spec.shape) if isinstance(dim, str)}
                    for spec in specs
                },
                opset_version=opset,
                dynamo=False,
            )
    except Exception as error:
        raise ConversionError(
            f"PyTorch's older exporter cannot convert this TorchScript: {first_line(error)}\n"
            "Save the model's source with torch.export.save and convert the .pt2."
        ) from error
    proto = onnx.load_model_from_string(content.getvalue())
    if [value.name for value in proto.graph.output] != names:
        raise ConversionError(
            f"PyTorch's older exporter made the outputs {', '.join(v.name for v in proto.graph.output)} of "
            f"{', '.join(names)}. Save the model's source with torch.export.save and convert the .pt2."
        )
    return Conversion(proto, choices)


def _runs(source: Any, tensors: Tensors) -> bool:
    try:
        source.run(tensors)
    except SourceError:
        return False
    return True


# -- Failures -----------------------------------------------------------------------------------------------


def _explain(error: BaseException, source: Any, given: Tensors) -> str:
    """Say in a line or two what the exporter stumbled over, and where in the model."""
    chain = list(_causes(error))
    root = chain[-1]
    text = "\n".join(str(link) for link in chain)
    if operator := _UNSUPPORTED.search(text):
        return f"PyTorch's exporter has no ONNX for {operator[1]}{_scope(chain)}. Write it with other operations."
    if dimension := _SPECIALISED.search(text):
        spec, axis = _place(dimension, source.inputs)
        if spec is None:
            return first_line(root)
        return _fixed(spec, axis, given, spec.shape[axis] == row_dimension(source.inputs))
    if type(root).__name__ in _DATA_DEPENDENT or "data-dependent" in text:
        return (
            f"The model's control flow or shapes depend on values of its inputs{_frame(chain, source)}. "
            "Write it with torch.where, torch.cond or fixed sizes."
        )
    return f"PyTorch cannot export the model{_frame(chain, source)}: {type(root).__name__}: {first_line(root)}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _place(match: re.Match[str], specs: Sequence[TensorSpec]) -> tuple[TensorSpec | None, int]:
    """The input and axis that a message of `torch.export` means: `inputs['x'].shape[1]`."""
    found = next((spec for spec in specs if f"'{spec.name}'" in match["input"]), None)
    position = re.search(r"\[(\d+)\]$", match["input"])
    if found is None and position and int(position[1]) < len(specs):
        found = specs[int(position[1])]
    return found, int(match["axis"])


def _scope(chain: Sequence[BaseException]) -> str:
    """The module in which the exporter met the operator that it was translating."""
    for link in chain:
        for frame in _frames(link):
            stack = getattr(frame.f_locals.get("node"), "meta", {}).get("nn_module_stack")
            if stack:
                path, kind = list(stack.values())[-1]
                name = kind if isinstance(kind, str) else kind.__qualname__
                return f" (in {path or 'the model itself'}, a {name.rpartition('.')[2]})"
    return ""


def _frame(chain: Sequence[BaseException], source: Any) -> str:
    """The user's line that the exporter was tracing, and the module that it worked for."""
    modules = {id(module): name for name, module in source.module.named_modules()}
    for link in reversed(chain):
        frames = [
            frame
            for frame in reversed(list(_frames(link)))
            if frame.f_globals.get("__name__", "").partition(".")[0] not in _LIBRARIES
        ]
        if not frames:
            continue
        callers = (frame.f_locals.get("self") for frame in frames)
        module = next((caller for caller in callers if id(caller) in modules), None)
        owner = f"{type(module).__name__} " if module is not None else ""
        where = f"{modules[id(module)]}, a {owner}" if modules.get(id(module)) else owner
        path, line = frames[0].f_code.co_filename, frames[0].f_lineno
        return f" in {where}({Path(path).name}:{line}: {linecache.getline(path, line).strip()})"
    return ""


def _frames(error: BaseException) -> Iterator[FrameType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next
