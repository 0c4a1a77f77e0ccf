"""Packed sequences of PyTorch: recurrent layers that stop at each row's own length.

PyTorch can export none of them, since how many rows are left at a step depends on the lengths. Here a packed sequence
stays padded and keeps its lengths, which ONNX's recurrent operators take as `sequence_lens`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

# In place of PyTorch's order of gates, ONNX's: input, output, forget, cell; and update, reset, new.
_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}


class _Lengths(NamedTuple):
    """A stand-in for the `batch_sizes` of a packed sequence.

    Attributes:
        lengths: int64 [batch].
        steps: Steps of the padded sequence.
    """

    lengths: Any
    steps: Any

    @property
    def device(self) -> Any:
        """The device of the lengths."""
        return self.lengths.device

    def size(self, axis: int) -> _Longest:
        """The number of steps."""
        return _Longest()


class _Longest:
    """Stands for the greatest length, which is known in the run only: no `total_length` compares as below it."""

    def __gt__(self, other: object) -> bool:
        return False


@contextmanager
def exportable() -> Iterator[None]:
    """Replace, while a model is traced, what packs and pads and the layers in between."""
    from torch import _VF, nn

    kinds = (nn.LSTM, nn.GRU, nn.RNN)
    forwards = [kind.forward for kind in kinds]
    packs, pads = _VF._pack_padded_sequence, _VF._pad_packed_sequence
    _VF._pack_padded_sequence, _VF._pad_packed_sequence = _pack, _pad
    for kind, forward in zip(kinds, forwards, strict=True):
        kind.forward = _choosing(forward, nn.utils.rnn.PackedSequence)
    try:
        yield
    finally:
        _VF._pack_padded_sequence, _VF._pad_packed_sequence = packs, pads
        for kind, forward in zip(kinds, forwards, strict=True):
            kind.forward = forward


def _choosing(forward: Callable[..., Any], packed: type) -> Callable[..., Any]:
    def choosing(self: Any, input: Any, hx: Any = None) -> Any:  # noqa: A002 - PyTorch's name
        return _run(self, input, hx) if isinstance(input, packed) else forward(self, input, hx)

    return choosing


def _pack(input: Any, lengths: Any, batch_first: bool) -> tuple[Any, _Lengths]:  # noqa: A002 - PyTorch's name
    series = input.transpose(0, 1) if batch_first else input
    return series, _Lengths(lengths, series.shape[0])


def _pad(
    data: Any, batch_sizes: _Lengths, batch_first: bool, padding_value: float, total_length: int | _Longest
) -> tuple[Any, Any]:
    """Steps beyond a row's length become the padding, up to the longest row or to `total_length`."""
    import torch

    lengths, steps = batch_sizes
    within = torch.arange(steps, device=data.device).unsqueeze(1) < lengths
    series = torch.where(within.reshape(steps, -1, *(1,) * (data.dim() - 2)), data, padding_value)
    if isinstance(total_length, _Longest):
        longest = lengths.max().item()
        torch._check(longest >= 1)
        torch._check(longest <= steps)
        series = series.narrow(0, 0, longest)
    elif total_length != steps:
        beyond = (0, 0) * (data.dim() - 1) + (0, total_length - steps)
        series = torch.nn.functional.pad(series, beyond, value=padding_value)
    return series.transpose(0, 1) if batch_first else series, lengths


def _run(layer: Any, packed: Any, hx: Any) -> tuple[Any, Any]:
    """A recurrent layer on a packed sequence."""
    import torch

    if layer.proj_size:
        raise NotImplementedError("ONNX's LSTM has no projection")
    series, batch_sizes, order, back = packed
    rows, directions = series.shape[1], 2 if layer.bidirectional else 1
    states = [hx] if isinstance(hx, torch.Tensor) else list(hx or ())
    if not states:
        shape = (layer.num_layers * directions, rows, layer.hidden_size)
        states = [series.new_zeros(shape)] * (2 if layer.mode == "LSTM" else 1)
    elif order is not None:
        states = [state.index_select(1, order) for state in states]
    lengths = batch_sizes.lengths.to(torch.int32)
    found: list[list[Any]] = []
    for number in range(layer.num_layers):
        first = number * directions
        start = [state[first : first + directions] for state in states]
        series, *last = _one(layer, layer.all_weights[first : first + directions], series, lengths, start)
        found.append(last)
    after = [torch.cat(state) for state in zip(*found, strict=True)]
    if back is not None:
        after = [state.index_select(1, back) for state in after]
    output = torch.nn.utils.rnn.PackedSequence(series, batch_sizes, order, back)
    return output, tuple(after) if len(after) > 1 else after[0]


def _one(
    layer: Any, weights: Sequence[Sequence[Any]], series: Any, lengths: Any, states: Sequence[Any]
) -> list[Any]:
    """ONNX's operator: its outputs as [steps, batch, directions * hidden], and the last states."""
    import torch

    kind = layer.mode.partition("_")[0]
    (steps, rows), directions, hidden = series.shape[:2], len(weights), layer.hidden_size
    gates = _GATES[kind]

    def in_order(weight: Any) -> Any:
        parts = weight.chunk(len(gates))
        return torch.cat([parts[gate] for gate in gates])

    kernel, recurrent, *biases = (
        torch.stack([in_order(weight) for weight in one]) for one in zip(*weights, strict=True)
    )
    attributes: dict[str, Any] = {
        "hidden_size": hidden,
        "direction": "bidirectional" if directions == 2 else "forward",
    }
    if kind == "GRU":
        attributes["linear_before_reset"] = 1
    elif kind == "RNN":
        attributes["activations"] = [layer.nonlinearity.capitalize()] * directions
    results = torch.onnx.ops.symbolic_multi_out(
        kind,
        [series, kernel, recurrent, torch.cat(biases, 1) if biases else None, lengths, *states],
        attributes,
        dtypes=[series.dtype] * (1 + len(states)),
        shapes=[(steps, directions, rows, hidden), *[(directions, rows, hidden)] * len(states)],
    )
    return [results[0].transpose(1, 2).reshape(steps, rows, directions * hidden), *results[1:]]
