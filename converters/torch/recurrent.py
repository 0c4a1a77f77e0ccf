"""Recurrent layers of PyTorch, exported for any number of steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from onnxtool.converters.torch.operators import onnx_ops

_EXPORTERS_OWN = ("register_lstm_while_loop_decomposition", "register_gru_while_loop_decomposition")


@contextmanager
def traced_by_shape() -> Iterator[None]:
    """Make PyTorch trace a recurrent layer by the shape of its result, and not step by step.

    Otherwise its results have as many steps as the example. The exporter has such kernels for LSTM and GRU, but
    takes them away before it rewrites the trace, and PyTorch remembers kernels beyond that.
    """
    import torch
    from torch._decomp import decomposition_table
    from torch.export import _patches

    aten = torch.ops.aten
    shapes = {aten.lstm.input: _lstm_shape} | dict.fromkeys(
        (aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input), _shape
    )
    kernels = {operator: operator.py_kernels for operator in shapes}
    decompositions = {operator: decomposition_table[operator] for operator in shapes}
    exporters = {name: getattr(_patches, name) for name in _EXPORTERS_OWN}
    for operator, shape in shapes.items():
        operator._dispatch_cache.clear()
        operator.py_kernels = dict.fromkeys(operator.py_kernels, shape)
        decomposition_table[operator] = shape
    for name in exporters:
        setattr(_patches, name, nullcontext)
    try:
        yield
    finally:
        decomposition_table.update(decompositions)
        for operator, original in kernels.items():
            operator._dispatch_cache.clear()
            operator.py_kernels = original
        for name, function in exporters.items():
            setattr(_patches, name, function)


def _shape(series: Any, state: Any, *arguments: Any) -> tuple[Any, Any]:
    """The result of a layer of one state, as shapes without values."""
    bidirectional = arguments[-2]
    width = state.shape[-1] * (2 if bidirectional else 1)
    return series.new_empty((*series.shape[:-1], width)), state.new_empty(state.shape)


def _lstm_shape(series: Any, states: Sequence[Any], *arguments: Any) -> tuple[Any, Any, Any]:
    return (*_shape(series, states[0], *arguments), states[1].new_empty(states[1].shape))


@contextmanager
def projections() -> Iterator[None]:
    """Trace an LSTM with projected outputs (`proj_size`), which ONNX's LSTM does not have, as a scan."""
    from torch import _VF

    native = _VF.lstm

    def choosing(series: Any, states: Any, *arguments: Any) -> Any:
        projected = isinstance(states, tuple | list) and states[0].shape[-1] != states[1].shape[-1]
        return (_projected if projected else native)(series, states, *arguments)

    _VF.lstm = choosing  # type: ignore[assignment]
    try:
        yield
    finally:
        _VF.lstm = native


def _projected(  # noqa: PLR0917 - ordered as PyTorch's operator
    series: Any,
    states: Sequence[Any],
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Any, Any, Any]:
    import torch

    directions, kinds = (2 if bidirectional else 1), (5 if has_biases else 3)
    series = series.transpose(0, 1) if batch_first else series
    last = []
    for layer in range(0, num_layers * directions, directions):
        outputs = []
        for number in range(layer, layer + directions):
            backwards = number > layer
            weights = params[number * kinds : (number + 1) * kinds]
            given = series.flip(0) if backwards else series
            step_output, *after = _scanned(given, states[0][number], states[1][number], *weights)
            outputs.append(step_output.flip(0) if backwards else step_output)
            last.append(after)
        series = torch.cat(outputs, -1)
    hidden, cells = (torch.stack(one) for one in zip(*last, strict=True))
    return series.transpose(0, 1) if batch_first else series, hidden, cells


def _scanned(series: Any, hidden: Any, cell: Any, kernel: Any, recurrent: Any, *others: Any) -> list[Any]:
    """One direction of one layer: outputs of each step, the last output and the last cell."""
    import torch
    from torch._higher_order_ops.scan import scan_op

    *biases, projection = others

    def step(hidden: Any, cell: Any, now: Any, recurrent: Any, projection: Any) -> list[Any]:
        enter, forget, new, leave = (now + hidden @ recurrent.T).chunk(4, -1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = (leave.sigmoid() * cell.tanh()) @ projection.T
        return [hidden.clone(), cell.clone(), hidden.clone()]

    gates = torch.nn.functional.linear(series, kernel, sum(biases) if biases else None)
    weights = [recurrent.clone(), projection.clone()]  # as nodes of the trace
    hidden, cell, outputs = scan_op(step, [hidden.clone(), cell.clone()], [gates], weights)
    return [outputs, hidden, cell]


def translations() -> dict[Any, Callable[..., Any]]:
    """The `custom_translation_table` of `torch.onnx.export` for plain recurrent layers, which it lacks."""
    from torch.ops import aten

    return {
        aten.rnn_tanh.input: partial(rnn, "Tanh"),
        aten.rnn_relu.input: partial(rnn, "Relu"),
    }


def rnn(  # noqa: PLR0917 - ordered as PyTorch's operator
    activation: str,
    series: Any,
    state: Any,
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Any, Any]:
    """Layers of ONNX's RNN, each on the outputs of the one below.

    Args:
        activation: ONNX's name of it.
        series: [steps, batch, width], or the batch first.
        state: [layers * directions, batch, hidden].
        params: Weights of the input and of the state, and both biases, of each direction of each layer.
        has_biases: Whether there are biases.
        num_layers: Layers.
        dropout: Dropout, which applies in training only.
        train: False.
        bidirectional: Whether each layer goes backwards too.
        batch_first: Whether the series, and the output, has the batch first.
    """
    op = onnx_ops()
    directions, kinds = (2 if bidirectional else 1), (4 if has_biases else 2)
    series = op.Transpose(series, perm=[1, 0, 2]) if batch_first else series
    states = []
    for layer in range(0, num_layers * directions, directions):
        weights, recurrent, *biases = (
            _stacked([params[(layer + direction) * kinds + kind] for direction in range(directions)])
            for kind in range(kinds)
        )
        steps, last = op.RNN(
            series,
            weights,
            recurrent,
            op.Concat(*biases, axis=1) if biases else None,
            None,
            op.Slice(state, [layer], [layer + directions], [0]),
            activations=[activation] * directions,
            direction="bidirectional" if bidirectional else "forward",
            hidden_size=int(state.shape[-1]),
        )
        series = op.Reshape(op.Transpose(steps, perm=[0, 2, 1, 3]), [0, 0, -1])
        states.append(last)
    output = op.Transpose(series, perm=[1, 0, 2]) if batch_first else series
    return output, op.Concat(*states, axis=0)


def _stacked(params: Sequence[Any]) -> Any:
    op = onnx_ops()
    return op.Concat(*(op.Unsqueeze(one, [0]) for one in params), axis=0)
