"""Keras models on its PyTorch backend, exported as PyTorch modules are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from onnxtool.converters.framework import Conversion
from onnxtool.converters.torch import from_module
from onnxtool.errors import ConversionError
from onnxtool.models.keras import KerasModel
from onnxtool.models.keras.backend import import_keras
from onnxtool.models.signature import Tensors
from onnxtool.models.source import LoadOptions
from onnxtool.models.torch import TorchSource


def convert(source: KerasModel, example: Tensors, opset: int) -> Conversion:
    """Export a module from tensors to tensors around the model; see `converters.torch.from_module`.

    Args:
        source: A model on the PyTorch backend.
        example: Rows to trace with.
        opset: Version of the default operator set.

    Raises:
        ConversionError: the exporter gives up, or a layer computes outside of PyTorch.
    """
    layers = import_keras().layers
    in_tensorflow = (layers.Hashing, layers.HashedCrossing, layers.IntegerLookup)
    if found := next(
        (layer for layer in source.model._flatten_layers() if isinstance(layer, in_tensorflow)), None
    ):
        raise ConversionError(
            f"{found.name} ({type(found).__name__}) computes in TensorFlow on every backend of Keras. "
            "Run again with KERAS_BACKEND=tensorflow."
        )
    with _exportable(), _own_tracebacks():
        return from_module(TorchSource(_module(source), LoadOptions(inputs=source.inputs)), example, opset)


@contextmanager
def _own_tracebacks() -> Iterator[None]:
    """Make Keras raise the original error, and not another one in its place."""
    config = import_keras().config
    if not config.is_traceback_filtering_enabled():
        yield
        return
    config.disable_traceback_filtering()
    try:
        yield
    finally:
        config.enable_traceback_filtering()


def _module(source: KerasModel) -> Any:
    import torch

    class Model(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = source.model

        def forward(self, *tensors: Any) -> dict[str, Any]:
            return dict(zip(source.outputs, source.call(*tensors), strict=True))

    return Model()


# -- Recurrent layers -----------------------------------------------------------------------------------------
# Keras has loops over time, of which a trace would keep as many steps as the example has.


@contextmanager
def _exportable() -> Iterator[None]:
    """Export recurrent layers for any number of steps: as an LSTM or GRU where ONNX has it, else as a Scan."""
    import torch

    keras = import_keras()
    backend, layer = keras.src.backend, keras.layers.RNN
    inner_loop = layer.inner_loop
    cells: list[Any] = []  # of the layers being traced, the innermost last

    def remembering(self: Any, *args: Any, **kwargs: Any) -> Any:
        cells.append(self.cell)
        try:
            return inner_loop(self, *args, **kwargs)
        finally:
            cells.pop()

    def choosing(ours: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            return ours(*args, **kwargs) if torch.compiler.is_exporting() else original(*args, **kwargs)

        return run

    replaced: list[tuple[Any, str, Callable[..., Any]]] = [
        (backend, "lstm", _lstm),
        (backend, "gru", _gru),
        (backend, "rnn", lambda *args, **kwargs: _rnn(cells[-1], *args, **kwargs)),
        (backend.random, "uniform", _uniform),
        (backend.random, "randint", _randint),
    ]
    originals = [getattr(owner, name) for owner, name, _ in replaced]
    layer.inner_loop = remembering
    for (owner, name, ours), original in zip(replaced, originals, strict=True):
        setattr(owner, name, choosing(ours, original))
    try:
        yield
    finally:
        layer.inner_loop = inner_loop
        for (owner, name, _), original in zip(replaced, originals, strict=True):
            setattr(owner, name, original)


def _lstm(inputs: Any, state_h: Any, state_c: Any, mask: Any, **options: Any) -> tuple[Any, Any, Any]:
    """`keras.src.backend.lstm`, whose gates are in PyTorch's order."""
    import torch

    _only_plain(mask, options)
    kernel, recurrent, bias = (_tensor(options[name]) for name in ("kernel", "recurrent_kernel", "bias"))
    weights = [kernel.T, recurrent.T]
    if bias is not None:
        weights += [bias, torch.zeros_like(bias)]
    series = inputs.flip(1) if options["go_backwards"] else inputs
    states = (state_h.unsqueeze(0), state_c.unsqueeze(0))
    outputs, h, c = torch._VF.lstm(series, states, weights, bias is not None, 1, 0.0, False, False, True)
    last = outputs[:, -1]
    return last, outputs if options["return_sequences"] else last.unsqueeze(1), [h.squeeze(0), c.squeeze(0)]


def _gru(inputs: Any, state: Any, mask: Any, **options: Any) -> tuple[Any, Any, Any]:
    """`keras.src.backend.gru`, whose gates are update, reset, new: PyTorch has reset, update, new."""
    import torch

    _only_plain(mask, options)
    if not options["reset_after"]:
        raise NotImplementedError
    units = options["recurrent_kernel"].shape[0]
    order = [*range(units, 2 * units), *range(units), *range(2 * units, 3 * units)]
    kernel, recurrent, bias = (_tensor(options[name]) for name in ("kernel", "recurrent_kernel", "bias"))
    weights = [kernel[:, order].T, recurrent[:, order].T]
    if bias is not None:
        weights += list(bias[:, order])
    series = inputs.flip(1) if options["go_backwards"] else inputs
    # PyTorch's new gate is the same, but for z and 1 - z in each other's place: both say z * h + (1 - z) * new.
    outputs, h = torch._VF.gru(series, state.unsqueeze(0), weights, bias is not None, 1, 0.0, False, False, True)
    last = outputs[:, -1]
    return last, outputs if options["return_sequences"] else last.unsqueeze(1), [h.squeeze(0)]


def _only_plain(mask: Any, options: dict[str, Any]) -> None:
    """Leave to the loop over steps, as Keras does by this exception, what the operators of PyTorch do not do."""
    activations = import_keras().activations
    plain = (options["activation"], options["recurrent_activation"]) == (activations.tanh, activations.sigmoid)
    if mask is not None or not plain:
        raise NotImplementedError


def _tensor(variable: Any) -> Any:
    return None if variable is None else import_keras().ops.convert_to_tensor(variable)


def _rnn(cell: Any, step_function: Any, inputs: Any, initial_states: Any, **options: Any) -> tuple[Any, Any, Any]:
    """`keras.src.backend.rnn`: the last output, all outputs, and the last states.

    A step that is masked leaves the states as they are, and repeats the last output or gives zeros.
    """
    import torch
    from torch._higher_order_ops.scan import scan_op

    keras = import_keras()
    tree, mask = keras.tree, options.get("mask")

    def in_time(tensor: Any) -> Any:
        tensor = tensor if options.get("time_major") else tensor.transpose(0, 1)
        return tensor.flip(0) if options.get("go_backwards") else tensor

    def one_step(now: Sequence[Any], states: Sequence[Any]) -> tuple[Any, list[Any]]:
        outputs_now, after = step_function(
            tree.pack_sequence_as(inputs, list(now)),
            (*tree.pack_sequence_as(initial_states, list(states)), *(options.get("constants") or ())),
        )
        return outputs_now, tree.flatten(after)

    series = [in_time(tensor) for tensor in tree.flatten(inputs)]
    masks = [] if mask is None else [in_time(mask.bool())]
    start = [_fresh(state) for state in tree.flatten(initial_states)]
    shape, _ = one_step([tensor[0] for tensor in series], start)
    nothing = [torch.zeros_like(_fresh(one)) for one in tree.flatten(shape)]
    variables = cell.variables

    def body(*given: Any) -> list[Any]:
        parts = iter(given)
        before, last, now, masked, weights = (
            list(islice(parts, len(part))) for part in (start, nothing, series, masks, variables)
        )
        # A graph of its own sees the weights only as inputs.
        with keras.StatelessScope(list(zip(variables, weights, strict=True))):
            output, after = one_step(now, before)
        outputs_now = tree.flatten(output)
        for kept in masked:
            other = [torch.zeros_like(one) for one in outputs_now] if options.get("zero_output_for_mask") else last
            outputs_now = [_where(kept, new, old) for new, old in zip(outputs_now, other, strict=True)]
            after = [_where(kept, new, old) for new, old in zip(after, before, strict=True)]
        return [_fresh(one) for one in (*after, *outputs_now, *outputs_now)]

    weights = [variable.value.clone() for variable in variables]  # as nodes of the trace
    found = iter(scan_op(body, [*start, *nothing], [*series, *masks], weights))
    states, last, outputs = (list(islice(found, len(part))) for part in (start, nothing, nothing))
    if not options.get("return_all_outputs", True):
        outputs = [one.unsqueeze(0) for one in last]
    if not options.get("time_major"):
        outputs = [one.transpose(0, 1) for one in outputs]
    packed = [tree.pack_sequence_as(shape, part) for part in (last, outputs)]
    return packed[0], packed[1], tree.pack_sequence_as(initial_states, states)


def _fresh(tensor: Any) -> Any:
    """A copy in the usual layout: what a scan carries shares no memory, and has one layout after each step."""
    import torch

    return tensor.clone(memory_format=torch.contiguous_format)


def _where(mask: Any, new: Any, old: Any) -> Any:
    import torch

    return torch.where(mask.reshape(*mask.shape, *(1,) * (new.dim() - mask.dim())), new, old)


def _uniform(shape: Any, minval: float = 0.0, maxval: float = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """`keras.random.uniform` without a seed: that is a value, on which nothing that is exported can depend.

    Layers that augment images draw numbers when they predict too, and do not use them.
    """
    import torch

    return torch.rand(tuple(shape), dtype=_torch_dtype(dtype)) * (maxval - minval) + minval


def _randint(shape: Any, minval: int, maxval: int, dtype: Any = "int32", seed: Any = None) -> Any:
    """`keras.random.randint` likewise."""
    return _uniform(shape, minval, maxval).floor().to(_torch_dtype(dtype))


def _torch_dtype(dtype: Any) -> Any:
    keras = import_keras()
    return keras.src.backend.torch.core.to_torch_dtype(dtype or keras.config.floatx())
