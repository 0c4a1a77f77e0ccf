"""Signatures of PyTorch models: names, dtypes and shapes of inputs, from options, data or examples."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import UsageError
from onnxtool.models.rows.data import UNNAMED
from onnxtool.models.signature import BATCH, DTYPES, Dim, Tensors, TensorSpec, dtype_name
from onnxtool.models.source import LoadOptions

_LARGEST = 2**31  # of a dimension without an upper bound
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def forward_parameters(module: Any) -> list[inspect.Parameter]:
    """The parameters of `forward`, of a `ScriptModule` too."""
    import torch

    if not isinstance(module, torch.jit.ScriptModule):
        return list(inspect.signature(module.forward).parameters.values())
    return [
        inspect.Parameter(
            argument.name,
            inspect.Parameter.KEYWORD_ONLY if argument.kwarg_only else inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=argument.default_value if argument.has_default_value() else inspect.Parameter.empty,
        )
        for argument in module.forward.schema.arguments[1:]
    ]


def module_inputs(
    module: Any, parameters: Sequence[inspect.Parameter], options: LoadOptions
) -> tuple[TensorSpec, ...]:
    """The signature of a module: given by the user, else taken from the data, else from its own example.

    Args:
        module: A module or a `ScriptModule`.
        parameters: What `forward_parameters` returned.
        options: Inputs and data of the user's.

    Returns:
        The inputs in the order of the parameters.

    Raises:
        UsageError: the inputs are not known, or are not those that `forward` takes.
    """
    return _in_order(_given_inputs(module, parameters, options), parameters)


def _given_inputs(
    module: Any, parameters: Sequence[inspect.Parameter], options: LoadOptions
) -> tuple[TensorSpec, ...]:
    named = [parameter for parameter in parameters if parameter.kind not in _VARIADIC]
    required = [parameter.name for parameter in named if parameter.default is inspect.Parameter.empty]
    if options.inputs:
        return options.inputs
    if options.data and (specs := _data_inputs(module, [p.name for p in named], required, options.data)):
        return specs
    if known := getattr(module, "input_specs", None):  # of a folder, whose library knows them
        return tuple(known)
    if example := own_example(module, parameters):
        return _example_inputs(example)
    suggestion = " ".join(f"--input {name}:float32[{BATCH},...]" for name in required or ["x"])
    raise UsageError(
        f"{type(module).__name__} does not define its inputs. Give them, with dtypes and sizes adapted: {suggestion}"
    )


def program_inputs(program: Any) -> tuple[TensorSpec, ...]:
    """The inputs of an exported program, with readable names for its symbolic dimensions: `batch`, `dim_1`.

    Raises:
        UsageError: an input is no tensor, or of a dtype that ONNX has not.
    """
    import torch

    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    symbols: dict[str, str] = {}
    specs = []
    for name in program.graph_signature.user_inputs:
        if not isinstance(name, str) or name not in placeholders:
            continue  # a constant
        value = placeholders[name].meta["val"]
        if not isinstance(value, torch.Tensor):
            raise UsageError(
                f"Input {name!r} of the exported program is no tensor. Export the model with it fixed."
            )
        dims: list[Dim] = []
        for axis, size in enumerate(value.shape):
            if isinstance(size, int):
                dims.append(size)
                continue
            symbol = str(size)
            free = BATCH if axis == 0 else f"dim_{axis}"
            if free in symbols.values() and symbol not in symbols:
                free = f"{name}_dim_{axis}"
            dims.append(symbols.setdefault(symbol, free))
        specs.append(TensorSpec(name, _torch_dtype(value, name), tuple(dims)))
    return tuple(specs)


def program_bounds(program: Any, inputs: Sequence[TensorSpec]) -> dict[str, tuple[int, int]]:
    """The least and the greatest size of each dynamic dimension that an exported program was made for.

    Args:
        program: The program.
        inputs: What `agreed` made of its inputs.
    """
    from torch.utils._sympy.numbers import int_oo

    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    found: dict[str, tuple[int, int]] = {}
    names = [
        name for name in program.graph_signature.user_inputs if isinstance(name, str) and name in placeholders
    ]
    for name, spec in zip(names, inputs, strict=True):
        for dim, size in zip(spec.shape, placeholders[name].meta["val"].shape, strict=True):
            if not isinstance(dim, str):
                continue
            limits = program.range_constraints.get(size.node.expr)
            if limits is not None:
                found[dim] = int(limits.lower), _LARGEST if limits.upper == int_oo else int(limits.upper)
    return {name: limits for name, limits in found.items() if limits != (0, _LARGEST)}


def agreed(own: tuple[TensorSpec, ...], given: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """An exported program's inputs, with the names that the user gives to its dimensions.

    Raises:
        UsageError: the user gives other inputs than those the program was exported with.
    """
    if not given:
        return own

    def fixed(spec: TensorSpec) -> tuple[object, ...]:
        return (spec.name, spec.dtype, *(dim if isinstance(dim, int) else None for dim in spec.shape))

    if sorted(map(fixed, own), key=str) != sorted(map(fixed, given), key=str):
        raise UsageError(
            f"The program was exported with {', '.join(map(str, own))}, and runs with nothing else. "
            f"--input says {', '.join(map(str, given))}."
        )
    by_name = {spec.name: spec for spec in given}
    return tuple(by_name[spec.name] for spec in own)


def _in_order(specs: tuple[TensorSpec, ...], parameters: Sequence[inspect.Parameter]) -> tuple[TensorSpec, ...]:
    """The inputs in the order of `forward`'s parameters.

    Raises:
        UsageError: they are not what `forward` takes.
    """
    names = [parameter.name for parameter in parameters if parameter.kind not in _VARIADIC]
    given = [spec.name for spec in specs]
    open_ended = len(names) < len(parameters)
    unknown = [name for name in given if name not in names and not open_ended]
    missing = [p.name for p in parameters if p.name in names and p.default is p.empty and p.name not in given]
    if unknown or missing or len(set(given)) < len(given):
        raise UsageError(
            f"The inputs {', '.join(map(str, specs))} are not those of the model's forward({', '.join(names)}). "
            "Name each parameter without a default once."
        )
    text = [spec.name for spec in specs if spec.dtype == "string"]
    if text:
        raise UsageError(f"Input {text[0]!r} is text, and PyTorch has no tensors of text.")
    return tuple(sorted(specs, key=lambda spec: names.index(spec.name) if spec.name in names else len(names)))


def _data_inputs(module: Any, names: list[str], required: list[str], data: Tensors) -> tuple[TensorSpec, ...]:
    """The signature that the data shows, or nothing when its names are not those of `forward`."""
    if set(required) <= set(data):
        return tuple(_data_spec(module, name, data[name]) for name in names if name in data)
    if len(required) > 1 or not names:
        return ()
    name = (required or names)[0]
    if set(data) == {UNNAMED}:
        return (_data_spec(module, name, data[UNNAMED]),)
    if all(array.ndim == 1 and array.dtype.kind in "biuf" for array in data.values()):  # a table
        row = np.stack([array[:1] for array in data.values()], axis=1)
        spec = _data_spec(module, name, row if row.dtype.kind == "f" else row.astype(np.float64))
        return (dataclasses.replace(spec, columns=tuple(data)),)
    return ()


def _data_spec(module: Any, name: str, array: NDArray[Any]) -> TensorSpec:
    dtype = dtype_name(array)
    if array.dtype.kind == "f":
        # Data is often float64 by default; the dtype of the weights is what the model takes.
        floats = (weight.dtype for weight in module.parameters() if weight.is_floating_point())
        dtype = str(next(floats, dtype)).removeprefix("torch.")
    return TensorSpec(name, dtype, (BATCH, *array.shape[1:]))


def own_example(module: Any, parameters: Sequence[inspect.Parameter]) -> dict[str, Any]:
    """The tensors by name that a module carries as an example of its inputs; nothing where it has none.

    Raises:
        UsageError: the example is something else.
    """
    import torch

    names = [parameter.name for parameter in parameters if parameter.kind not in _VARIADIC]
    attributes = ("example_inputs", "example_input_array")  # the second is Lightning's
    where = next((name for name in attributes if getattr(module, name, None) is not None), None)
    if where is None:
        return {}
    kinds = torch.Tensor | np.ndarray
    example = getattr(module, where)
    if isinstance(example, kinds):
        example = (example,)
    if isinstance(example, list | tuple):
        example = dict(zip(names, example, strict=False))
    if not isinstance(example, Mapping) or not all(isinstance(value, kinds) for value in example.values()):
        raise UsageError(
            f"{type(module).__name__}.{where} is neither a tensor, nor a tuple of tensors, nor a dict of tensors by "
            f"name. Say what the model takes: --input {(names or ['x'])[0]}:float32[{BATCH},...]"
        )
    return {str(name): torch.as_tensor(value) for name, value in example.items()}


def _example_inputs(tensors: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    rows = next((tensor.shape[0] for tensor in tensors.values() if tensor.ndim), None)
    return tuple(
        TensorSpec(
            name,
            _torch_dtype(tensor, name),
            tuple(BATCH if axis == 0 and size == rows else int(size) for axis, size in enumerate(tensor.shape)),
        )
        for name, tensor in tensors.items()
    )


def _torch_dtype(tensor: Any, name: str) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise UsageError(f"Input {name!r} is of dtype {dtype}, which ONNX models cannot take.")
    return dtype
