"""PyTorch models as functions of named tensors: modules, exported programs and TorchScript."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import SourceError, require
from onnxtool.models.onnx.artifact import first_line
from onnxtool.models.rows.data import UNNAMED
from onnxtool.models.rows.domain import Domain
from onnxtool.models.signature import Tensors, TensorSpec, dtype_name, numpy_dtype
from onnxtool.models.source import LoadOptions, SourceModel, Step
from onnxtool.models.torch.domains import torch_domains
from onnxtool.models.torch.files import quiet, read_weights
from onnxtool.models.torch.lengths import with_open_lengths
from onnxtool.models.torch.signature import (
    agreed,
    forward_parameters,
    module_inputs,
    own_example,
    program_bounds,
    program_inputs,
)
from onnxtool.models.torch.state import ModuleState

_SHOWN = 5


class TorchSource(SourceModel):
    """An `nn.Module`, a `ScriptModule` or an `ExportedProgram`.

    Attributes:
        module: What runs: `model` itself, or the module inside an exported program.
        parameters: What `forward` takes. An exported program takes its inputs flat, by position.
        sizes_of_rows: The inputs with the sizes of the owner's rows, where the signature was read from those.
    """

    framework = "torch"
    module: Any
    parameters: Sequence[inspect.Parameter]
    sizes_of_rows: tuple[TensorSpec, ...] = ()
    _state: ModuleState | None = None

    def __init__(self, model: Any, options: LoadOptions) -> None:
        torch = require("torch", "torch")
        self.framework_version = torch.__version__
        self._changed: set[str] = set()
        self.model = model = getattr(model, "_orig_mod", model)  # what torch.compile has compiled
        if self.exported:
            self.inputs = agreed(program_inputs(model), options.inputs)
            self.bounds = program_bounds(model, self.inputs)
            with quiet():
                self.module = model.module(check_guards=False)
            return
        self.module = model
        self.parameters = forward_parameters(model)
        self.inputs = module_inputs(model, self.parameters, options)
        if not options.inputs:
            self._open_lengths(options.data)

    def _open_lengths(self, data: Tensors) -> None:
        """Leave open the lengths that the rows, or the module's own example, show and the module does not need."""
        names = [spec.name for spec in self.inputs]
        rows = {names[0]: data[UNNAMED]} if set(data) == {UNNAMED} and names else data
        rows = rows or {
            name: to_array(tensor) for name, tensor in own_example(self.model, self.parameters).items()
        }
        if set(names) <= set(rows):
            few = {spec.name: rows[spec.name][:2].astype(numpy_dtype(spec.dtype)) for spec in self.inputs}
            self.sizes_of_rows = self.inputs
            self.inputs = with_open_lengths(self.inputs, few, self.run)

    @property
    def exported(self) -> bool:
        """Whether the model is an `ExportedProgram`, whose inputs are settled."""
        import torch

        return isinstance(self.model, torch.export.ExportedProgram)

    def predict(self, tensors: Tensors) -> Tensors:
        """Run `forward` in evaluation mode, without gradients, on the device of the module's weights."""
        return {name: to_array(value) for name, value in named_tensors(self._forward(tensors), tensors).items()}

    def run(self, tensors: Tensors) -> Any:
        """The result of `forward` for a copy of the rows; the module is left as it was.

        Raises:
            SourceError: it fails.
        """
        with self.kept():
            return self._forward({name: array.copy() for name, array in tensors.items()})

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Put back what a run changes of the module, and the state of random numbers; `effects` names it."""
        state = self._state = self._state or ModuleState(self.module)
        state.note_random()
        try:
            yield
        finally:
            if changed := state.changes():
                self._changed |= set(changed)
                left = state.restore()
                self.remark(
                    "its own state",
                    f"Running the source changes it ({_shortened(sorted(self._changed))}). "
                    + (f"Not put back: {_shortened(left)}." if left else "It was put back after each run."),
                )
            state.restore_random()

    def _forward(self, tensors: Tensors) -> Any:
        import torch

        args, kwargs = self.arguments(self.tensors(tensors))
        with evaluating(self.module), torch.no_grad():
            try:
                return self.module(*args, **kwargs)
            except Exception as error:  # whatever the user's module raises
                given = ", ".join(f"{name}:{dtype_name(a)}{list(a.shape)}" for name, a in tensors.items())
                raise SourceError(
                    f"{type(self.model).__name__} fails to run on {given}: {first_line(error)}\n"
                    "If it takes other inputs, say so with --input NAME:DTYPE[DIMS]. If it takes other values, give "
                    "rows with --data."
                ) from error

    def steps(self, tensors: Tensors) -> Iterator[Step]:
        """The nodes of an exported program; of a module, the parts of it that have none themselves."""
        with self.kept():
            yield from self._steps(tensors)

    def step_runs(self, batches: Sequence[Tensors]) -> list[list[Step]]:
        """The steps of one batch after the other; see `SourceModel`."""
        with self.kept():
            return [self._steps(batch) for batch in batches]

    def _steps(self, tensors: Tensors) -> list[Step]:
        import torch

        args, kwargs = self.arguments(self.tensors({name: array.copy() for name, array in tensors.items()}))
        with evaluating(self.module), torch.no_grad():
            outputs = _node_outputs if self.exported else _layer_outputs
            return outputs(self.module, args, kwargs)

    def in_double(self, tensors: Tensors) -> Tensors | None:
        """Run a copy in double precision; None for a forward that insists on another."""
        import torch

        twin = copy.copy(self)
        try:
            with quiet():
                twin.module = copy.deepcopy(self.module).double()
        except (RuntimeError, TypeError, ValueError):  # raised by a module that cannot be copied or cast
            return None
        with self.kept(), evaluating(twin.module), torch.no_grad():
            args, kwargs = twin.arguments(twin.tensors({name: array.copy() for name, array in tensors.items()}))
            try:
                found = named_tensors(twin.module(*args, **kwargs), tensors)
            except Exception:  # a forward with a dtype of its own
                return None
        return {name: to_array(value) for name, value in found.items()}

    def tensors(self, arrays: Tensors) -> dict[str, Any]:
        """The inputs as tensors, where the module's weights are; on a CPU they share the arrays' memory."""
        import torch

        device = next((weight.device for weight in _weights(self.module)), torch.device("cpu"))
        return {spec.name: to_tensor(arrays[spec.name]).to(device) for spec in self.inputs}

    def arguments(self, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Pass one value for each input as `forward` takes it: by position or by keyword."""
        if self.exported:
            return _program_arguments(self.model, [values[spec.name] for spec in self.inputs])
        rest = dict(values)
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        positional = True
        for parameter in self.parameters:
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                args += rest.values()
                rest = {}
            elif parameter.name not in rest:
                positional = False  # what follows a default that stays is named
            elif positional and parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                args.append(rest.pop(parameter.name))
            else:
                kwargs[parameter.name] = rest.pop(parameter.name)
        return tuple(args), kwargs | rest

    def domains(self) -> Mapping[str, Domain]:
        """Tokens and masks; see `models.torch_domains`."""
        return self._domains

    @cached_property
    def _domains(self) -> Mapping[str, Domain]:
        return torch_domains(self)  # which runs the module


def _layer_outputs(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Step]:
    found: list[Step] = []

    def hook(name: str, kind: str) -> Callable[..., None]:
        def record(_: Any, __: Any, output: Any) -> None:
            for part, tensor in _flatten(output, name):
                found.append(Step(part, kind, to_array(tensor.clone())))  # what follows may work in place

        return record

    leaves = [(name, part) for name, part in module.named_modules() if name and not any(part.children())]
    handles = [part.register_forward_hook(hook(name, type(part).__name__)) for name, part in leaves]
    try:
        module(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _node_outputs(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Step]:
    from torch import Tensor, fx

    found: list[Step] = []

    class Recorder(fx.Interpreter):  # type: ignore[misc]
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n.op == "call_function" and isinstance(value, Tensor):
                found.append(Step(n.name, str(n.target).partition(".default")[0], to_array(value.clone())))
            return value

    from torch.utils import _pytree

    flat, _ = _pytree.tree_flatten((args, kwargs))
    with quiet():
        Recorder(module).run(*flat, enable_io_processing=False)
    return found


def build(reference: str, weights: Path | None = None) -> Any:
    """Import `package.module:callable`, the current folder included, and call it.

    Args:
        reference: The callable's name: a function, a class of modules, or a module that exists already.
        weights: File of a state dict to load into the module.

    Raises:
        SourceError: there is no such callable, it fails, it returns no module, or the weights do not fit.
    """
    torch = require("torch", "torch")
    package, _, attribute = reference.partition(":")
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{package}.".startswith(f"{error.name}."):
            raise SourceError(f"{package} needs {error.name}, which is not installed.") from error
        raise SourceError(
            f"There is no Python module {error.name}, neither installed nor in the current folder {Path.cwd()}."
        ) from error
    except Exception as error:  # whatever the user's module raises
        raise SourceError(f"{package} fails on import: {type(error).__name__}: {first_line(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, dir(found), n=3)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            where = getattr(sys.modules[package], "__file__", None) or "no file"
            raise SourceError(f"The module {package} ({where}) has no {attribute}.{hint}")
        found = getattr(found, part)
    module = found if isinstance(found, torch.nn.Module) else _call(found, reference)
    if not isinstance(module, torch.nn.Module):
        raise SourceError(f"{reference} returns a {type(module).__name__}, not a torch.nn.Module.")
    if weights is not None:
        _load_weights(module, weights)
    return module


def named_tensors(value: Any, inputs: Iterable[str] = ()) -> dict[str, Any]:
    """Flatten what `forward` returns.

    Keys and field names become names, positions become numbers: `logits`, `hidden_0`, or `output` for a lone
    tensor. What is no tensor is left out.

    Args:
        value: Tensors, tuples, lists, mappings and dataclasses, nested.
        inputs: Names that are taken: ONNX has one space of names for all tensors.
    """
    named: dict[str, Any] = {}
    for name, tensor in _flatten(value, ""):
        unique = name or "output"
        while unique in named or unique in inputs:
            unique += "_output"
        named[unique] = tensor
    return named


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Put a module and its children in evaluation mode, and back as they were."""
    training = [child for child in module.modules() if child.training]
    try:
        for child in training:
            child.training = False
        yield
    finally:
        for child in training:
            child.training = True


def to_tensor(array: NDArray[Any]) -> Any:
    """A CPU tensor of an array, which shares its memory where that can be written."""
    import torch

    array = np.require(array, requirements=["C", "W"])
    if array.dtype.name == "bfloat16":  # NumPy knows it only through ml_dtypes
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_array(tensor: Any) -> NDArray[Any]:
    """An array of a tensor, from whatever device."""
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        bits: NDArray[Any] = tensor.contiguous().view(torch.int16).numpy()
        return bits.view(ml_dtypes.bfloat16)
    array: NDArray[Any] = tensor.numpy(force=True)
    return array


def _flatten(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    import torch

    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flatten(item, _joined(name, key))
    elif dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
        fields = value._fields if hasattr(value, "_fields") else [f.name for f in dataclasses.fields(value)]
        for field in fields:
            yield from _flatten(getattr(value, field), _joined(name, field))
    elif isinstance(value, list | tuple):
        items = [item for item in value if any(True for _ in _flatten(item, ""))]
        for position, item in enumerate(items):
            yield from _flatten(item, name if len(items) == 1 else _joined(name or "output", position))


def _joined(name: str, part: object) -> str:
    return f"{name}_{part}" if name else str(part)


def _program_arguments(program: Any, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    from torch.utils import _pytree

    pending = iter(tensors)
    placeholders = {node.name for node in program.graph.nodes if node.op == "placeholder"}
    flat = [
        next(pending) if isinstance(name, str) and name in placeholders else name
        for name in program.graph_signature.user_inputs
    ]
    args, kwargs = _pytree.tree_unflatten(flat, program.call_spec.in_spec)
    return args, kwargs


def _weights(module: Any) -> Iterator[Any]:
    yield from module.parameters()
    yield from module.buffers()


def _call(function: Callable[..., Any], reference: str) -> Any:
    if not callable(function):
        raise SourceError(f"{reference} is a {type(function).__name__}, not something that builds a model.")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise SourceError(
            f"{reference} cannot be called without arguments: {error}. "
            "Write a function without any that returns the model, and name that."
        ) from error
    except ValueError:
        pass  # a callable of C code has no signature to look at
    try:
        return function()
    except Exception as error:  # whatever the user's code raises
        raise SourceError(f"{reference} fails: {type(error).__name__}: {first_line(error)}") from error


def _load_weights(module: Any, path: Path) -> None:
    own = module.state_dict()
    weights = _under_own_names(read_weights(path), own)
    faults = {
        "missing in the file": [name for name in own if name not in weights],
        "unknown to the model": [name for name in weights if name not in own],
        "of another shape": [
            f"{name} (file {list(weights[name].shape)}, model {list(own[name].shape)})"
            for name in own
            if name in weights and weights[name].shape != own[name].shape
        ],
    }
    if any(faults.values()):
        faults_found = "; ".join(
            f"{len(names)} {fault}: {_shortened(names)}" for fault, names in faults.items() if names
        )
        raise SourceError(f"--weights {path} does not fit {type(module).__name__}. {faults_found}.")
    module.load_state_dict(weights)


def _under_own_names(weights: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The weights without a prefix that all of them share, and with tied ones of which the file keeps one.

    DataParallel, torch.compile and Lightning put a prefix before each name; safetensors keeps one of the names of a
    tensor that has several.
    """
    while weights and not any(name in own for name in weights):
        prefix = next(iter(weights)).partition(".")[0] + "."
        if not all(name.startswith(prefix) for name in weights):
            break
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    tied = {name: other for name in own if name not in weights for other in weights if _shared(own, name, other)}
    return weights | {name: weights[other] for name, other in tied.items()}


def _shared(own: Mapping[str, Any], name: str, other: str) -> bool:
    """Whether two names of a state dict are those of one tensor."""
    one, two = own[name], own.get(other)
    return two is not None and one.numel() > 0 and one.data_ptr() == two.data_ptr() and one.shape == two.shape


def _shortened(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
