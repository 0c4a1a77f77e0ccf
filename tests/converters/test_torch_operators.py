"""What PyTorch's exporter gets from onnxtool, on sizes, lengths, masks and numbers at the edges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import onnxtool


class Both:
    """A module, and what ONNX Runtime makes of it."""

    def __init__(self, module: nn.Module, folder: Path, *inputs: str) -> None:
        torch.manual_seed(0)
        self.module = module.eval()
        onnxtool.convert(module, folder / "m.onnx", inputs=list(inputs))
        self.session = onnxruntime.InferenceSession(folder / "m.onnx")

    def __call__(self, **tensors: torch.Tensor) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Each output, of ONNX Runtime and of PyTorch."""
        found = self.session.run(None, {name: tensor.numpy() for name, tensor in tensors.items()})
        with torch.no_grad():
            expected = self.module(*tensors.values())
        expected = [expected] if isinstance(expected, torch.Tensor) else list(expected)
        return [(ours, theirs.numpy()) for ours, theirs in zip(found, expected, strict=True)]


class Calling(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


class Packed(nn.Module):
    """Outputs up to the longest row, and the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(3, 4, bidirectional=True, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
        packed = pack_padded_sequence(x, lengths.clamp(1, x.shape[1]), batch_first=True, enforce_sorted=False)
        output, last = self.layer(packed)
        padded, sizes = pad_packed_sequence(output, batch_first=True, padding_value=-1.0)
        return padded, sizes, last


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(8))

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> Any:
        return self.encoder(x, src_key_padding_mask=hidden)


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("pooled")
    average, largest = nn.AdaptiveAvgPool2d((3, 5)), nn.AdaptiveMaxPool2d((4, 2), return_indices=True)
    return Both(Calling(lambda x: (average(x), *largest(x))), folder, "x:float32[batch,2,height,width]")


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
def test_adaptive_pooling_takes_any_size(pooled: Both, height: int, width: int, seed: int) -> None:
    images = torch.randn(2, 2, height, width, generator=torch.Generator().manual_seed(seed))
    average, largest, places = pooled(x=images)
    np.testing.assert_allclose(*average, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(*largest)
    np.testing.assert_array_equal(*places)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Both:
    return Both(Packed(), tmp_path_factory.mktemp("packed"), "x:float32[batch,time,3]", "lengths:int64[batch]")


@given(st.lists(st.integers(1, 7), min_size=1, max_size=6))
def test_a_packed_sequence_of_any_lengths(packed: Both, lengths: list[int]) -> None:
    series = torch.randn(len(lengths), 7, 3, generator=torch.Generator().manual_seed(sum(lengths)))
    padded, sizes, last = packed(x=series, lengths=torch.tensor(lengths))
    assert padded[0].shape == (len(lengths), max(lengths), 8)
    np.testing.assert_allclose(*padded, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(*sizes)
    np.testing.assert_allclose(*last, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("encoder")
    return Both(Encoder(), folder, "x:float32[batch,5,8]", "hidden:bool[batch,5]")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@given(st.lists(st.sets(st.integers(0, 4), max_size=4), min_size=1, max_size=4), st.booleans())
def test_an_encoder_blanks_what_its_mask_hides_where_pytorch_does(
    encoder: Both, rows: list[set[int]], at_the_end: bool
) -> None:
    hidden = torch.tensor([[step in row for step in range(5)] for row in rows])
    hidden = hidden.sort(1)[0] if at_the_end else hidden
    series = torch.randn(len(rows), 5, 8, generator=torch.Generator().manual_seed(len(rows)))
    (output,) = encoder(x=series, hidden=hidden)
    np.testing.assert_allclose(*output, rtol=1e-4, atol=1e-5)


def test_an_angle_has_the_signs_of_zeros_and_infinities(tmp_path: Path) -> None:
    numbers = torch.tensor([0.0, -0.0, 1.0, -1.0, torch.inf, -torch.inf, torch.nan, 1e-45, 1e38])
    pairs = torch.cartesian_prod(numbers, numbers)
    both = Both(Calling(lambda x: torch.atan2(x[:, 0], x[:, 1])), tmp_path, "x:float32[batch,2]")
    (angles,) = both(x=pairs)
    np.testing.assert_allclose(*angles, atol=1e-6)
    np.testing.assert_array_equal(*(np.signbit(angle[~np.isnan(angle)]) for angle in angles))


def test_a_remainder_has_the_sign_of_the_divisor(tmp_path: Path) -> None:
    both = Both(Calling(lambda x: (x % -3, x % 4, x % x.shape[1])), tmp_path, "x:int64[batch,steps]")
    for ours, theirs in both(x=torch.arange(-9, 9).reshape(3, 6)):
        np.testing.assert_array_equal(ours, theirs)
    real = Both(Calling(lambda x: (x % -0.3, x % 0.3)), tmp_path, "x:float32[batch,6]")
    for ours, theirs in real(x=torch.linspace(-2, 2, 18).reshape(3, 6)):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_elimination_takes_the_largest_pivot(tmp_path: Path) -> None:
    both = Both(Calling(torch.linalg.inv), tmp_path, "x:float32[batch,4,4]")
    matrices = torch.stack([torch.eye(4).flip(0), torch.tensor(np.vander([1e-4, 2, -1, 3])).float()])
    (inverses,) = both(x=matrices)
    np.testing.assert_allclose(*inverses, rtol=1e-3, atol=1e-3)
