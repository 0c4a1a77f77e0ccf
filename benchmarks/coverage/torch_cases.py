"""For each layer of torch.nn, and for functions that models call, a small module."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

FUNCTION = "function."
ROW, OTHERS, SERIES, IMAGE, VOLUME = "8", "8", "time,8", "4,12,12", "4,8,8,8"
SPATIAL = ((1, "4,10"), (2, IMAGE), (3, VOLUME))

NO_MODEL = {
    "Container Module ModuleDict ModuleList ParameterDict ParameterList Sequential": "hold other modules or weights",
    "RNNBase RNNCellBase": "base classes",
    "DataParallel SyncBatchNorm": "for several GPUs",
    "NLLLoss2d": "a former name of NLLLoss",
    "FractionalMaxPool3d": "draws windows at random, as FractionalMaxPool2d does, which is here",
}
"""Layers that have no case, and why. Nor has a Lazy module, which is another one once it has run, or a loss."""


class Case(NamedTuple):
    """What makes a module, and its inputs as `--input` takes them."""

    make: Callable[[], Any]
    inputs: list[str]


class Cases(dict[str, Case]):
    """Cases by name: a layer's or a function's, with a variant after a slash."""

    def make(self, name: str, make: Callable[[], Any], *shapes: str, dtype: str = "float32") -> None:
        """Add a case for the module that a function makes.

        Args:
            name: The case.
            make: Makes the module.
            shapes: Dimensions of each input without the batch; with a dtype before a colon where it has one.
            dtype: That of inputs without one.
        """
        inputs = []
        for name_of, shape in zip(_NAMES, shapes, strict=False):
            kind, _, dims = shape.rpartition(":")
            inputs.append(f"{name_of}:{kind or dtype}[{','.join(filter(None, ['batch', dims]))}]")
        self[name] = Case(make, inputs)

    def add(self, names: str, shape: str, *arguments: Any, dtype: str = "float32", **options: Any) -> None:
        """Add a case for each name, of a layer of torch.nn with these arguments and one input."""
        for name in names.split():
            self.make(name, partial(_layer, name.partition("/")[0], arguments, options), shape, dtype=dtype)

    def call(self, name: str, function: Callable[..., Any], *shapes: str, dtype: str = "float32") -> None:
        """Add a case for a function of one to three tensors."""
        self.make(FUNCTION + name, partial(_calling, function), *shapes, dtype=dtype)


_NAMES = ("first", "second", "third")


def _layer(kind: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """A layer whose inputs have the names of `_NAMES`."""
    import torch

    return _calling(getattr(torch.nn, kind)(*arguments, **options))


def _calling(function: Callable[..., Any]) -> Any:
    """A module that calls a function, or another module."""
    import torch

    class Calling(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.function = function

        def forward(self, first: Any, second: Any = None, third: Any = None) -> Any:
            return self.function(*(tensor for tensor in (first, second, third) if tensor is not None))

    return Calling()


def torch_module(name: str) -> Any:
    """The module of a case, whose weights and running statistics are random, as it predicts.

    Raises:
        KeyError: there is no such case.
    """
    import torch

    torch.manual_seed(0)
    return randomised(torch_cases()[name].make().eval())


def randomised(model: Any) -> Any:
    """Give constant weights and running statistics noise, which a graph that leaves them out would get wrong."""
    import torch

    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            constant = (
                weight.is_floating_point() and weight.numel() and bool((weight == weight.flatten()[0]).all())
            )
            if constant and (isinstance(weight, torch.nn.Parameter) or name.endswith(("mean", "var"))):
                weight.add_(torch.empty_like(weight).uniform_(-0.2, 0.2, generator=noise))
    return model


def torch_cases() -> Cases:
    """Every case."""
    cases = Cases()
    for part in (_plain, _spatial, _resized, _recurrent, _attention, _reduced, _indexed, _mathematical, _complex):
        part(cases)
    return cases


def _plain(cases: Cases) -> None:
    cases.add(
        "ELU Hardshrink Hardsigmoid Hardtanh Hardswish LeakyReLU LogSigmoid PReLU ReLU ReLU6 RReLU SELU", ROW
    )
    cases.add("CELU GELU GLU Sigmoid SiLU Mish Softplus Softshrink Softsign Tanh Tanhshrink Identity", ROW)
    cases.add("Dropout AlphaDropout FeatureAlphaDropout", ROW)
    cases.add("Softmin Softmax LogSoftmax", ROW, dim=-1)
    cases.add("GELU/tanh", ROW, approximate="tanh")
    cases.add("Threshold", ROW, 0.1, 20)
    cases.add("Softmax2d", IMAGE)
    cases.add("Linear", ROW, 8, 3)
    cases.make("Bilinear", partial(_layer, "Bilinear", (8, 8, 3), {}), ROW, OTHERS)
    for kind in ("CosineSimilarity", "PairwiseDistance"):
        cases.make(kind, partial(_layer, kind, (), {}), ROW, OTHERS)
    cases.add("LayerNorm RMSNorm", SERIES, 8)
    cases.add("LayerNorm/two-axes", "6,8", (6, 8))
    cases.add("GroupNorm", IMAGE, 2, 4)
    cases.add("LocalResponseNorm CrossMapLRN2d", IMAGE, 3)
    cases.add("Flatten", IMAGE)
    cases.add("Unflatten", ROW, 1, (2, 4))
    cases.add("Embedding", "6", 20, 5, padding_idx=0, dtype="int64")
    for mode in ("sum", "mean", "max"):
        cases.add(f"EmbeddingBag/{mode}", "6", 20, 5, mode=mode, dtype="int64")
    cases.add("EmbeddingBag", "6", 20, 5, padding_idx=1, dtype="int64")
    cases.make("AdaptiveLogSoftmaxWithLoss", _adaptive_softmax, ROW)
    for name in ("weight_norm", "spectral_norm", "orthogonal"):
        cases.make(f"Linear/{name}", partial(_parametrised, name), ROW)


def _adaptive_softmax() -> Any:
    import torch

    class LogProbability(torch.nn.AdaptiveLogSoftmaxWithLoss):  # type: ignore[misc]
        def forward(self, first: Any) -> Any:
            return self.log_prob(first)

    return LogProbability(8, 10, [3, 6])


def _parametrised(name: str) -> Any:
    from torch import nn

    return _calling(getattr(nn.utils.parametrizations, name)(nn.Linear(8, 3)))


def _spatial(cases: Cases) -> None:
    for rank, shape in SPATIAL:
        kind = f"{rank}d"
        cases.add(f"Conv{kind}", shape, 4, 6, 3, padding=1, stride=2)
        cases.add(f"Conv{kind}/same", shape, 4, 6, 4, padding="same", dilation=2)
        cases.add(f"Conv{kind}/groups", shape, 4, 8, 3, groups=2)
        for mode in ("reflect", "replicate", "circular"):
            cases.add(f"Conv{kind}/{mode}", shape, 4, 6, 3, padding=1, padding_mode=mode)
        cases.add(f"ConvTranspose{kind}", shape, 4, 6, 3, stride=2, padding=1, output_padding=1)
        cases.add(f"ConvTranspose{kind}/groups", shape, 4, 6, 3, stride=2, groups=2, dilation=2)
        cases.add(f"MaxPool{kind} AvgPool{kind}", shape, 3, 2, 1)
        cases.add(f"MaxPool{kind}/ceil AvgPool{kind}/ceil", shape, 3, 2, ceil_mode=True)
        cases.add(f"MaxPool{kind}/dilated", shape, 3, 2, dilation=2)
        cases.add(f"MaxPool{kind}/indices", shape, 2, return_indices=True)
        cases.add(f"AvgPool{kind}/without-padding", shape, 3, 2, 1, count_include_pad=False)
        cases.add(f"LPPool{kind}", shape, 2, 3, 2)
        for size in (1, 2, 3):
            cases.add(f"AdaptiveAvgPool{kind}/{size} AdaptiveMaxPool{kind}/{size}", shape, size)
        cases.add(f"AdaptiveMaxPool{kind}/indices", shape, 3, return_indices=True)
        cases.make(f"MaxUnpool{kind}", partial(_unpool, rank), shape)
        cases.add(f"BatchNorm{kind} InstanceNorm{kind}", shape, 4, affine=True)
        cases.add(f"InstanceNorm{kind}/running", shape, 4, track_running_stats=True)
        cases.add(f"Dropout{kind}", shape)
        pads = " ".join(f"{pad}Pad{kind}" for pad in ("Reflection", "Replication", "Circular", "Zero"))
        cases.add(pads, shape, 2)
        cases.add(f"ConstantPad{kind}", shape, 2, 1.5)
    cases.add("AdaptiveAvgPool2d/any-size AdaptiveMaxPool2d/any-size", "4,height,width", (3, 5))
    cases.add("FractionalMaxPool2d", IMAGE, 3, output_size=5)


def _unpool(rank: int) -> Any:
    import torch

    pool = _layer(f"MaxPool{rank}d", (2,), {"return_indices": True})
    unpool = getattr(torch.nn, f"MaxUnpool{rank}d")(2)
    return _calling(lambda images: unpool(*pool(images)))


def _resized(cases: Cases) -> None:
    import torch
    import torch.nn.functional as f

    cases.add("Fold", "36,16", (6, 6), (3, 3))
    cases.add("Unfold", IMAGE, 3, padding=1, stride=2)
    cases.add("PixelShuffle PixelUnshuffle ChannelShuffle", IMAGE, 2)
    cases.add("UpsamplingBilinear2d UpsamplingNearest2d", IMAGE, scale_factor=2)
    cases.add("Upsample/linear", "4,10", scale_factor=2.0, mode="linear")
    cases.add("Upsample/trilinear", VOLUME, scale_factor=2.0, mode="trilinear")
    sizes: dict[str, dict[str, Any]] = {
        "2": {"scale_factor": 2.0},
        "1.7": {"scale_factor": 1.7},
        "size": {"size": (7, 17)},
    }
    for size, sizing in sizes.items():
        cases.add(f"Upsample/nearest-{size}", IMAGE, mode="nearest", **sizing)
        cases.add(f"Upsample/nearest-exact-{size}", IMAGE, mode="nearest-exact", **sizing)
        for mode in ("bilinear", "bicubic"):
            cases.add(f"Upsample/{mode}-{size}", IMAGE, mode=mode, **sizing)
            cases.add(f"Upsample/{mode}-{size}-corners", IMAGE, mode=mode, align_corners=True, **sizing)
    cases.call("interpolate/area", lambda x: f.interpolate(x, size=(5, 5), mode="area"), IMAGE)
    for mode in ("bilinear", "bicubic"):
        cases.call(
            f"interpolate/{mode}-antialias",
            lambda x, mode=mode: f.interpolate(x, size=(5, 5), mode=mode, antialias=True),
            IMAGE,
        )
    cases.call(
        "interpolate/channels-last",
        lambda x: f.interpolate(x.permute(0, 3, 1, 2), size=(5, 5), mode="bicubic").permute(0, 2, 3, 1),
        "12,12,4",
    )
    cases.call("pad", lambda x: f.pad(x, (1, 2, 3, 1), mode="reflect"), IMAGE)
    grid = "5,7,2"
    cases.call("grid_sample", lambda x, g: f.grid_sample(x, g.tanh(), align_corners=False), IMAGE, grid)
    cases.call(
        "grid_sample/bicubic",
        lambda x, g: f.grid_sample(x, g.tanh(), mode="bicubic", padding_mode="border", align_corners=True),
        IMAGE,
        grid,
    )
    cases.call(
        "grid_sample/nearest",
        lambda x, g: f.grid_sample(x, g.tanh(), mode="nearest", padding_mode="reflection", align_corners=True),
        IMAGE,
        grid,
    )
    cases.call(
        "grid_sample/volume", lambda x, g: f.grid_sample(x, g.tanh(), align_corners=False), VOLUME, "5,7,3,3"
    )
    cases.call("affine_grid", lambda t: f.affine_grid(t, [len(t), 4, 6, 7], align_corners=False), "2,3")
    cases.call("flip_and_roll", lambda x: (x.flip(1, 2), x.roll(2, 1), x.rot90(1, (2, 3))), IMAGE)
    cases.call("unfold", lambda x: x.unfold(1, 3, 2), ROW)
    cases.call("movedim", lambda x: x.movedim(1, -1).swapaxes(1, 2), IMAGE)
    cases.call("tril", lambda x: (x.tril(), x.triu(1)), IMAGE)
    cases.call("split", lambda x: torch.cat([part * 2 for part in x.chunk(3, 1)], 1), ROW)
    cases.call("unbind", lambda x: torch.stack(x.unbind(1), 0).sum(0), ROW)
    cases.call("repeat", lambda x: (x.repeat(1, 2), x.repeat_interleave(2, 1), x.tile(2)), ROW)
    cases.call("diag_embed", torch.diag_embed, ROW)


def _recurrent(cases: Cases) -> None:
    import torch

    for kind in ("RNN", "LSTM", "GRU"):
        cases.add(kind, SERIES, 8, 5, batch_first=True)
        cases.add(f"{kind}/layers", SERIES, 8, 5, num_layers=2, bidirectional=True, batch_first=True)
        cases.add(f"{kind}/without-bias", SERIES, 8, 5, bias=False, batch_first=True)
        cases.make(f"{kind}/steps-first", partial(_steps_first, kind), SERIES)
        cases.make(f"{kind}/packed", partial(_packed, kind, batch_first=True), SERIES, "int64:")
        cases.make(
            f"{kind}/packed-layers", partial(_packed, kind, num_layers=2, bidirectional=True), SERIES, "int64:"
        )
        cases.add(f"{kind}Cell", ROW, 8, 5)
    cases.add("RNN/relu", SERIES, 8, 5, nonlinearity="relu", batch_first=True)
    cases.add("LSTM/projection", SERIES, 8, 6, proj_size=3, batch_first=True)
    cases.call("cond", lambda x: torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,)), ROW)
    cases.call("vmap", torch.vmap(lambda row: row * row.sum()), ROW)


def _steps_first(kind: str) -> Any:
    layer = _layer(kind, (8, 5), {})

    return _calling(lambda series: layer(series.transpose(0, 1))[0].transpose(0, 1))


def _packed(kind: str, **options: Any) -> Any:
    """A layer over sequences of lengths that are given, with its outputs and its last states."""
    import torch
    from torch.nn.utils import rnn

    class Packed(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = getattr(torch.nn, kind)(8, 5, **options)

        def forward(self, first: Any, second: Any) -> Any:
            lengths = (second % first.shape[1] + 1).cpu()
            batch_first = self.layer.batch_first
            series = first if batch_first else first.transpose(0, 1)
            packed = rnn.pack_padded_sequence(series, lengths, batch_first, enforce_sorted=False)
            output, last = self.layer(packed)
            total = None if batch_first else first.shape[1]
            return rnn.pad_packed_sequence(output, batch_first=True, total_length=total), last

    return Packed()


def _attention(cases: Cases) -> None:
    import torch
    import torch.nn.functional as f
    from torch import nn

    made: dict[str, Callable[[], Any]] = {
        "MultiheadAttention": lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        "MultiheadAttention/biases": lambda: nn.MultiheadAttention(
            8, 2, batch_first=True, add_bias_kv=True, add_zero_attn=True
        ),
    }
    for name, make in made.items():
        cases.make(name, partial(_self_attention, make), SERIES)
    cases.add("TransformerEncoderLayer", SERIES, 8, 2, 16, batch_first=True)
    cases.add(
        "TransformerEncoderLayer/norm-first",
        SERIES,
        8,
        2,
        16,
        batch_first=True,
        norm_first=True,
        activation="gelu",
    )
    cases.make("TransformerEncoder", partial(_encoder, mask_check=True), SERIES, "int64:")
    cases.make("TransformerEncoder/unchecked", partial(_encoder, mask_check=False), SERIES, "int64:")
    cases.make(
        "TransformerDecoderLayer",
        partial(_layer, "TransformerDecoderLayer", (8, 2, 16), {"batch_first": True}),
        SERIES,
        "source,8",
    )
    cases.make("TransformerDecoder", _decoder, SERIES, "source,8")
    cases.make(
        "Transformer",
        partial(_layer, "Transformer", (8, 2, 1, 1, 16), {"batch_first": True}),
        SERIES,
        "target,8",
    )
    heads = "2,time,8"
    attend = f.scaled_dot_product_attention
    cases.call("scaled_dot_product_attention", attend, heads, "2,source,8", "2,source,8")
    cases.call("scaled_dot_product_attention/causal", lambda q, k: attend(q, k, k, is_causal=True), heads, heads)
    cases.call(
        "scaled_dot_product_attention/shared",
        lambda q, k: attend(q, k, k, enable_gqa=True),
        "4,6,8",
        "2,6,8",
    )
    keys = "2,6,8"
    cases.call(
        "scaled_dot_product_attention/hidden", lambda q, k, m: attend(q, k, k, m), heads, keys, "bool:1,time,6"
    )
    cases.call(
        "scaled_dot_product_attention/biased",
        lambda q, k, m: attend(q, k, k, m.relu().log()),
        heads,
        keys,
        "2,time,6",
    )
    cases.call("scaled_dot_product_attention/3", lambda q, k: attend(q, k, k), SERIES, SERIES)
    cases.call("einsum", lambda a, b: torch.einsum("btc,bsc->bts", a, b), SERIES, "source,8")


def _self_attention(make: Callable[[], Any]) -> Any:
    attention = _calling(make())
    return _calling(lambda series: attention(series, series, series))


def _encoder(mask_check: bool) -> Any:
    """An encoder with a final norm over sequences of lengths that are given."""
    import torch
    from torch import nn

    class Encoder(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(8), mask_check=mask_check)

        def forward(self, first: Any, second: Any) -> Any:
            steps = torch.arange(first.shape[1])
            return self.encoder(first, src_key_padding_mask=steps > (second % first.shape[1]).unsqueeze(1))

    return Encoder()


def _decoder() -> Any:
    from torch import nn

    return _calling(nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2))


def _reduced(cases: Cases) -> None:
    import torch

    cases.call("sum", lambda x: (x.sum(-1), x.mean((1, 2)), x.prod(1), x.amax((2, 3)), x.amin(1)), IMAGE)
    cases.call("any", lambda x: ((x > 1).any(1), (x > -1).all(1), torch.count_nonzero(x > 0, dim=1)), IMAGE)
    cases.call("std", lambda x: (x.std(-1), x.var(-1, unbiased=False), x.logsumexp(-1)), ROW)
    cases.call(
        "norm", lambda x: (x.norm(dim=-1), x.norm(p=1, dim=-1), torch.linalg.vector_norm(x, 3, dim=-1)), ROW
    )
    cases.call("normalize", torch.nn.functional.normalize, ROW)
    cases.call("cumsum", lambda x: (x.cumsum(-1), x.logcumsumexp(-1)), ROW)
    cases.call("cummax", lambda x: (torch.cummax(x, 1), torch.cummin(x, -1)), IMAGE)
    cases.call("cumprod", lambda x: x.cumprod(-1), ROW)
    cases.call("topk", lambda x: torch.topk(x, 3), ROW)
    cases.call("sort", lambda x: torch.sort(x, descending=True), ROW)
    cases.call("argmax", lambda x: (x.argmax(-1), x.argmin(-1, keepdim=True), x.argsort(-1)), ROW)
    cases.call("aminmax", lambda x: torch.aminmax(x, dim=1), ROW)
    cases.call("median", lambda x: torch.median(x, dim=-1), ROW)
    cases.call("median/images", lambda x: torch.median(x, dim=1, keepdim=True), IMAGE)
    cases.call("kthvalue", lambda x: torch.kthvalue(x, 2, dim=-1), ROW)
    cases.call("mode", lambda x: torch.mode((x * 3).long(), dim=1)[0], IMAGE)
    cases.call("quantile", lambda x: torch.quantile(x, 0.3, dim=-1), ROW)
    cases.call("nanmean", lambda x: (x.nanmean(-1), x.nansum(-1)), ROW)
    cases.call("diff", torch.diff, ROW)
    cases.call("trapezoid", torch.trapezoid, ROW)
    cases.call("bincount", lambda x: torch.bincount(x.abs().flatten() % 5, minlength=5), "4", dtype="int64")
    cases.call("histc", lambda x: torch.histc(x, 5, -2.0, 2.0), ROW)
    cases.call("cov", lambda x: torch.cov(x.T), ROW)


def _indexed(cases: Cases) -> None:
    import torch
    import torch.nn.functional as f

    places = "int64:3"
    cases.call("gather", lambda x, i: x.gather(1, i % 8), ROW, places)
    cases.call("scatter", lambda x, i: torch.zeros_like(x).scatter(1, i % 8, 1.0), ROW, places)
    cases.call("scatter_add", lambda x, i: x.scatter_add(1, i % 8, x[:, :3]), ROW, places)
    cases.call("scatter_reduce", lambda x, i: x.scatter_reduce(1, i % 8, x[:, :3], "amax"), ROW, places)
    cases.call("index_select", lambda x: x.index_select(1, torch.tensor([0, 2])), ROW)
    cases.call("index_fill", lambda x: x.index_fill(1, torch.tensor([1]), 3.0), ROW)
    cases.call("index_add", lambda x: x.index_add(1, torch.tensor([0, 2]), x[:, :2]), ROW)
    cases.call("masked_fill", lambda x: x.masked_fill(x > 0, -1.0), ROW)
    cases.call("masked_select", lambda x: x[x > 0], ROW)
    cases.call("nonzero", lambda x: torch.nonzero(x > 0), ROW)
    cases.call("unique", lambda x: torch.unique(x % 5), "4", dtype="int64")
    cases.call("where", lambda x: torch.where(x > 0, x, -x), ROW)
    cases.call("take_along_dim", lambda x: x.take_along_dim(x.argsort(-1), -1), ROW)
    cases.call("searchsorted", lambda x: torch.searchsorted(torch.tensor([-1.0, 0.0, 1.0]), x), ROW)
    cases.call("searchsorted/rows", lambda x, y: torch.searchsorted(x.sort(-1)[0], y, right=True), ROW, OTHERS)
    cases.call("bucketize", lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0])), ROW)
    cases.call("one_hot", lambda x: f.one_hot(x % 5, 5), "3", dtype="int64")
    cases.call("isin", lambda x: torch.isin(x % 5, torch.tensor([1, 3])), "4", dtype="int64")


def _mathematical(cases: Cases) -> None:
    import torch
    import torch.nn.functional as f

    cases.call("exp", lambda x: (x.exp(), x.expm1(), x.abs().log1p(), torch.logit(x.sigmoid())), ROW)
    cases.call("trigonometry", lambda x: (x.sin(), x.cos(), x.tanh().asin(), x.tanh().acos(), x.atan()), ROW)
    cases.call(
        "hyperbolic",
        lambda x: (x.sinh(), x.cosh(), x.asinh(), (x.abs() + 1).acosh(), (x.tanh() * 0.9).atanh()),
        ROW,
    )
    cases.call("erf", lambda x: (torch.erf(x), torch.erfc(x)), ROW)
    cases.call("erfinv", lambda x: torch.erfinv(x.tanh() * 0.9), ROW)
    cases.call("lgamma", lambda x: torch.lgamma(x.abs() + 1), ROW)
    cases.call("i0", torch.special.i0, ROW)
    cases.call("atan2", torch.atan2, ROW, OTHERS)
    cases.call("atan2/zero", lambda x: torch.atan2(x.relu(), x), ROW)
    cases.call("hypot", torch.hypot, ROW, OTHERS)
    cases.call("pow", lambda x: (x.abs() ** 0.5, x**2, 2**x, x.abs().pow(x)), ROW)
    cases.call("fmod", lambda x, y: (torch.fmod(x, y.abs() + 1), torch.remainder(x, y.abs() + 1)), ROW, OTHERS)
    cases.call("round", lambda x: (x.round(), x.trunc(), x.frac(), x.sign(), x.round(decimals=1)), ROW)
    cases.call("clamp", lambda x: (x.clamp(-1, 1), x.clamp_min(0), torch.nan_to_num(x / 0)), ROW)
    cases.call("lerp", lambda x, y: (torch.lerp(x, y, 0.3), torch.addcmul(x, x, y)), ROW, OTHERS)
    cases.call("logical", lambda x, y: ((x > 0) & (y > 0), (x > 0) ^ (y > 0), torch.isclose(x, y)), ROW, OTHERS)
    cases.call("bitwise", lambda x, y: (x & y, x | y, x ^ y, ~x, x << 1, x >> 1), "4", "4", dtype="int64")
    cases.call("cdist", torch.cdist, SERIES, "others,8")
    cases.call("cdist/1", lambda x, y: torch.cdist(x, y, p=1.0), SERIES, "others,8")
    cases.call("cdist/3", lambda x, y: torch.cdist(x, y, p=3.0), SERIES, "others,8")
    cases.call("cross", lambda x: torch.linalg.cross(x[:, :3], x[:, 3:6]), ROW)
    cases.call("kron", lambda x: torch.kron(x, torch.ones(2, 2)), ROW)
    cases.call("tensordot", lambda x: torch.tensordot(x, torch.ones(8, 3), dims=1), SERIES)
    cases.call("baddbmm", lambda x: torch.baddbmm(torch.ones(1), x, x.transpose(1, 2)), SERIES)
    cases.call("losses", lambda x, y: (f.smooth_l1_loss(x, y), f.mse_loss(x, y)), ROW, OTHERS)
    cases.call("cross_entropy", lambda x, y: f.cross_entropy(x, y % 8, reduction="none"), ROW, "int64:")
    cases.call("bfloat16", lambda x: (x.bfloat16() * 2).float(), ROW)
    cases.call("float16", lambda x: (x.half() * 2).float(), ROW)
    square = "3,3"
    positive: Callable[[Any], Any] = lambda x: x @ x.transpose(1, 2) + torch.eye(3)  # noqa: E731 - as short as its use
    cases.call("det", torch.linalg.det, square)
    cases.call("inv", lambda x: torch.linalg.inv(positive(x)), square)
    cases.call("solve", lambda x: torch.linalg.solve(positive(x), x), square)
    cases.call("solve/vector", lambda x, y: torch.linalg.solve(positive(x), y), square, "3")
    cases.call("solve/right", lambda x: torch.linalg.solve(positive(x), x, left=False), square)
    cases.call("cholesky", lambda x: torch.linalg.cholesky(positive(x)), square)
    cases.call("eigvalsh", lambda x: torch.linalg.eigvalsh(positive(x)), square)
    cases.call("svdvals", torch.linalg.svdvals, square)
    cases.call("qr", lambda x: torch.linalg.qr(x)[1].abs(), square)
    cases.call("pinv", torch.linalg.pinv, square)
    cases.call("matrix_exp", lambda x: torch.matrix_exp(x * 0.1), square)


def _complex(cases: Cases) -> None:
    import torch

    cases.make("function.rotary_embedding", _rotary, SERIES)
    cases.call("rfft", lambda x: torch.fft.rfft(x).abs(), ROW)
    cases.call("rfft/angle", lambda x: torch.fft.rfft(x).angle(), ROW)
    cases.call("fft", lambda x: torch.fft.fft(x).real, ROW)
    cases.call("irfft", lambda x: torch.fft.irfft(torch.fft.rfft(x) * 2, n=8), ROW)
    cases.call("rfft2", lambda x: torch.fft.rfft2(x).abs(), IMAGE)
    window = torch.hann_window(16)
    stft = partial(torch.stft, n_fft=16, hop_length=4, window=window, return_complex=True)
    cases.call("stft", lambda x: stft(x).abs(), "64")
    cases.call("istft", lambda x: torch.istft(stft(x), n_fft=16, hop_length=4, window=window), "64")


def _rotary() -> Any:
    """Positions as rotations of pairs, by complex numbers."""
    import torch

    class Rotary(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("frequency", torch.tensor([1.0, 0.1, 0.01, 0.001]))

        def forward(self, first: Any) -> Any:
            angles = torch.outer(torch.arange(first.shape[1]), self.frequency)
            pairs = torch.view_as_complex(first.reshape(*first.shape[:2], 4, 2))
            return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(2)

    return Rotary()
