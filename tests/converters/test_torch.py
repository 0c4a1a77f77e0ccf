"""Exporting PyTorch models: the ONNX model says the same at sizes that it was not exported with."""

from __future__ import annotations

import dataclasses
import logging
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import onnxtool
from onnxtool.converters.framework import Conversion, ConvertOptions
from onnxtool.converters.torch import FRAMEWORK
from onnxtool.errors import ConversionError
from onnxtool.models.reference.torch import resnet, save, transformer
from onnxtool.models.rows.inputs import make_inputs
from onnxtool.models.signature import BATCH, TensorSpec
from onnxtool.models.source import LoadOptions, SourceModel
from onnxtool.models.torch.files import quiet

EXPORTED_AT = 5
MATRIX = "x:float32[batch,4]"
SERIES = "x:float32[batch,length,4]"


def opened(model: object, *specs: str) -> SourceModel:
    options = LoadOptions(inputs=tuple(map(TensorSpec.parse, specs)))
    if isinstance(model, str | Path):
        model = FRAMEWORK.load(str(model), options)
    return FRAMEWORK.wrap(model, options)


def convert(source: SourceModel, opset: int | None = None, rows: int = EXPORTED_AT) -> Conversion:
    return FRAMEWORK.convert(source, make_inputs(source.inputs, rows, 0, source.domains()), ConvertOptions(opset))


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def shapes(values: Sequence[onnx.ValueInfoProto]) -> dict[str, list[int | str]]:
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def resized(source: SourceModel, length: int) -> list[TensorSpec]:
    """The inputs with every dynamic dimension but the rows of this length."""
    return [
        dataclasses.replace(
            s, shape=tuple(length if a and isinstance(d, str) else d for a, d in enumerate(s.shape))
        )
        for s in source.inputs
    ]


def assert_same(
    source: SourceModel,
    model: onnx.ModelProto,
    rows: Sequence[int] = (1, 3, 17),
    lengths: Sequence[int] = (12, 7, 1),
) -> None:
    """Names in order, dtypes, shapes and values are the source's, whatever the number of rows and the length."""
    runtime = session(model)
    assert list(shapes(model.graph.input)) == [spec.name for spec in source.inputs]
    for seed, (count, length) in enumerate((r, n) for r in rows for n in lengths):
        tensors = make_inputs(resized(source, length), count, seed, source.domains())
        expected = source.predict(tensors)
        assert [value.name for value in model.graph.output] == list(expected)
        for (name, correct), got in zip(expected.items(), runtime.run(None, tensors), strict=True):
            assert got.dtype == correct.dtype and got.shape == correct.shape, name
            loose = correct.dtype == np.float16
            np.testing.assert_allclose(got, correct, rtol=1e-2 if loose else 1e-4, atol=1e-2 if loose else 1e-5)


def net(forward, **children: nn.Module) -> nn.Module:
    """A module with this `forward` and a layer `dense`."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(4, 4)
            for name, child in children.items():
                self.add_module(name, child)

    Net.forward = forward
    torch.manual_seed(0)
    return Net().eval()


# -- Round trips --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {path.stem: path for path in save(tmp_path_factory.mktemp("reference"))}


def test_resnet(saved: dict[str, Path]) -> None:
    model = resnet()
    assert 0.2e6 < sum(weight.numel() for weight in model.parameters()) < 0.4e6
    norm = model.stem[1]
    assert norm.running_mean.abs().max() > 0.05 and (norm.running_var - 1).abs().max() > 0.05
    source = opened(saved["resnet"])
    conversion = convert(source)
    assert not conversion.choices
    assert shapes(conversion.model.graph.input) == {"image": [BATCH, 3, 32, 32]}
    assert shapes(conversion.model.graph.output) == {"logits": [BATCH, 10], "features": [BATCH, 64]}
    assert_same(source, conversion.model, lengths=[1])
    assert_same(opened("onnxtool.models.reference.torch:resnet"), conversion.model, rows=[2], lengths=[1])


def test_transformer_at_several_lengths(saved: dict[str, Path]) -> None:
    signature = ["tokens:int64[batch,length]", "mask:bool[batch,length]"]
    source = opened(saved["transformer"], *signature)
    conversion = convert(source)
    assert not conversion.choices
    assert shapes(conversion.model.graph.input) == {"tokens": [BATCH, "length"], "mask": [BATCH, "length"]}
    assert shapes(conversion.model.graph.output) == {"logits": [BATCH, 4], "pooled": [BATCH, 64]}
    assert_same(source, conversion.model, lengths=[12, 7, 128])
    live = opened(transformer(), *signature)
    assert_same(live, convert(live).model, lengths=[12, 7, 128])


def test_a_program_with_bounds_and_its_own_names() -> None:
    module = net(lambda self, x, y: {"sum": self.dense(x) + y, "nothing": None})
    batch, width = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("width")
    with quiet():
        program = torch.export.export(
            module, (torch.zeros(3, 6, 4),), {"y": torch.zeros(3, 6, 1)},
            dynamic_shapes={"x": {0: batch, 1: width}, "y": {0: batch, 1: width}},
        )  # fmt: skip
    source = opened(program)
    assert [str(spec) for spec in source.inputs] == ["x:float32[batch,dim_1,4]", "y:float32[batch,dim_1,1]"]
    conversion = convert(source)
    assert shapes(conversion.model.graph.input) == {"x": [BATCH, "dim_1", 4], "y": [BATCH, "dim_1", 1]}
    assert_same(source, conversion.model)


def test_a_compiled_module_is_the_module() -> None:
    with quiet():
        source = opened(torch.compile(net(lambda self, x: self.dense(x))), MATRIX)
    assert_same(source, convert(source).model, lengths=[1])


def test_recurrent_layers_of_any_length() -> None:
    def forward(self, x):
        y, state = self.layer(x)
        return {"series": y, "last": self.dense(y[:, -1].reshape(x.shape[0], 4)), "state": state}

    for layer in (nn.LSTM, nn.LSTM, nn.GRU):  # PyTorch alone fixes the second of a kind to the example's length
        source = opened(net(forward, layer=layer(4, 4, num_layers=2, batch_first=True)), SERIES)
        conversion = convert(source)
        assert shapes(conversion.model.graph.output)["series"] == [BATCH, "length", 4]
        assert_same(source, conversion.model)


def test_a_length_that_is_computed() -> None:
    def forward(self, x):
        return self.conv(x.transpose(1, 2)), x.mean(1)

    source = opened(net(forward, conv=nn.Conv1d(4, 6, 2, padding=1, stride=2)), SERIES)
    assert_same(source, convert(source).model)


@pytest.mark.parametrize("rows", [1, 2])
def test_one_row_and_the_longest_length_are_examples_too(rows: int) -> None:
    def forward(self, x):
        return self.dense(x) + self.positions.weight[: x.shape[1]]

    source = opened(net(forward, positions=nn.Embedding(12, 4)), SERIES)
    conversion = convert(source, rows=rows)
    assert not conversion.choices
    assert_same(source, conversion.model)


def test_a_single_row_is_kept_when_the_number_is_fixed() -> None:
    source = opened(net(lambda self, x: torch.stack([self.dense(row) for row in x])), MATRIX)
    assert shapes(convert(source, rows=1).model.graph.input) == {"x": [1, 4]}


# -- What goes in and comes out -----------------------------------------------------------------------------


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...] = ()
    loss: torch.Tensor | None = None


@pytest.mark.parametrize(
    ("forward", "specs", "names"),
    [
        (lambda self, x: self.dense(x), [MATRIX], ["output"]),
        (lambda self, x: (self.dense(x), None, [x * 2]), [MATRIX], ["output_0", "output_1"]),
        (lambda self, x: {"z": self.dense(x), "a": {"b": x + 1, "c": None}}, [MATRIX], ["z", "a_b"]),
        (lambda self, x: Output(self.dense(x), (x * 2, x * 3)), [MATRIX], ["logits", "hidden_0", "hidden_1"]),
        (lambda self, x: {"y": self.dense(x), "rows": x.shape[0], "version": 3}, [MATRIX], ["y"]),
        (lambda self, x: (x, self.dense(x), self.dense.weight, torch.arange(3)), [MATRIX],
         ["output_0", "output_1", "output_2", "output_3"]),
        (lambda self, x: dict.fromkeys(["twice", "once"], self.dense(x)), [MATRIX], ["twice", "once"]),
        (lambda self, x: {"add": self.dense(x), "linear": x + 1, "x": x * 2}, [MATRIX],
         ["add", "linear", "x_output"]),
    ],
    ids=["tensor", "tuple", "nested", "dataclass", "numbers", "handed-on", "twice", "taken-names"],
)  # fmt: skip
def test_outputs_of_every_form(forward, specs: list[str], names: list[str]) -> None:
    source = opened(net(forward), *specs)
    conversion = convert(source)
    assert list(shapes(conversion.model.graph.output)) == names
    assert_same(source, conversion.model, lengths=[1])


def keyword_only(self, x, *, mask, scale=None):
    return self.dense(x) * mask if scale is None else self.dense(x) * scale


def with_gap(self, x, scale=None, *, shift=None, offset=None):
    return self.dense(x) + offset


def variadic(self, *tensors):
    return self.dense(tensors[0]) + tensors[1]


def keywords(self, x, **others):
    return self.dense(x) + others["shift"]


@pytest.mark.parametrize(
    ("forward", "specs"),
    [
        (keyword_only, ["mask:bool[batch,4]", MATRIX]),
        (with_gap, [MATRIX, "offset:float32[batch,4]"]),
        (variadic, [MATRIX, "y:float32[batch,4]"]),
        (keywords, [MATRIX, "shift:float32[batch,4]"]),
        (lambda self, x, table: self.dense(x) + table, [MATRIX, "table:float32[4]"]),
    ],
    ids=["keyword-only", "gap", "variadic", "keywords", "no-rows"],
)
def test_arguments_of_every_form(forward, specs: list[str]) -> None:
    source = opened(net(forward), *specs)
    assert_same(source, convert(source).model, lengths=[1])


def test_weights_keep_their_names() -> None:
    model = convert(opened(net(lambda self, x: self.dense(x)), MATRIX)).model
    assert {weight.name for weight in model.graph.initializer} == {"dense.weight", "dense.bias"}


def test_float16() -> None:
    source = opened(net(lambda self, x: self.dense(x)).half(), "x:float16[batch,4]")
    assert_same(source, convert(source).model, lengths=[1])


def test_bfloat16_is_converted_though_the_runtime_has_few_kernels() -> None:
    model = convert(opened(net(lambda self, x: self.dense(x)).bfloat16(), "x:bfloat16[batch,4]")).model
    onnx.checker.check_model(model, full_check=True)
    values = [*model.graph.input, *model.graph.output]
    assert {value.type.tensor_type.elem_type for value in values} == {onnx.TensorProto.BFLOAT16}
    assert {weight.data_type for weight in model.graph.initializer} == {onnx.TensorProto.BFLOAT16}


# -- Dimensions that cannot be dynamic ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forward", "why"),
    [
        (
            lambda self, x: torch.stack([self.dense(row) for row in x]),
            "computes with dimension 0 of input 'x' as a fixed number",
        ),
        (
            lambda self, x: self.dense(x) + torch.ones(EXPORTED_AT, 1),
            "computes with dimension 0 of input 'x' as a fixed number",
        ),
        (lambda self, x: x + 1 if x.shape[0] > 4 else self.dense(x), "something else with 5 or more rows"),
        (lambda self, x: x + 1 if x.shape[0] < 9 else self.dense(x), "something else with 0 to 8 rows"),
    ],
    ids=["loop", "constant", "branch-above", "branch-below"],
)
def test_a_model_that_forbids_any_number_of_rows(forward, why: str) -> None:
    source = opened(net(forward), MATRIX)
    conversion = convert(source)
    assert shapes(conversion.model.graph.input) == {"x": [EXPORTED_AT, 4]}
    assert shapes(conversion.model.graph.output) == {"output": [EXPORTED_AT, 4]}
    assert len(conversion.choices) == 1
    assert (
        conversion.choices[0].startswith(f"Exported for exactly {EXPORTED_AT} rows")
        and why in conversion.choices[0]
    )
    assert_same(source, conversion.model, rows=[EXPORTED_AT], lengths=[1])


def test_a_number_of_rows_that_is_computed_with_stays_dynamic() -> None:
    source = opened(net(lambda self, x: self.dense(x) * float(int(x.shape[0]))), MATRIX)
    conversion = convert(source)
    assert not conversion.choices
    assert_same(source, conversion.model, lengths=[1])


def test_a_squeeze_of_a_dimension_that_is_never_1_stays_nothing() -> None:
    source = opened(net(lambda self, x: self.dense(x).reshape(-1).squeeze(0)[:, None] * x.sum()), MATRIX)
    assert_same(source, convert(source).model, lengths=[1])


def test_a_fixed_number_of_rows_is_kept() -> None:
    source = opened(net(lambda self, x: self.dense(x)), "x:float32[2,4]")
    conversion = convert(source)
    assert shapes(conversion.model.graph.input) == {"x": [2, 4]} and not conversion.choices
    assert_same(source, conversion.model, rows=[2], lengths=[1])


def test_another_dimension_that_cannot_be_dynamic_is_an_error() -> None:
    def forward(self, x):
        state = torch.zeros(x.shape[0], 4)
        for step in range(x.shape[1]):
            state = torch.tanh(self.dense(x[:, step]) + state)
        return state

    with pytest.raises(
        ConversionError, match=r"dimension 1 of input 'x'.*--input x:float32\[batch,\d+,4\]"
    ) as caught:
        convert(opened(net(forward), SERIES))
    assert short(caught.value)


@pytest.mark.parametrize("mask", ["none", "causal", "bool", "float"])
@pytest.mark.parametrize("dims", ["batch,length,4", "batch,2,3,length,4"])
def test_attention_takes_any_number_of_dimensions(dims: str, mask: str) -> None:
    """PyTorch's exporter knows attention of 4 dimensions alone."""

    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.inputs(x).chunk(3, -1)
        seen = {"bool": x[..., 0] > 0, "float": x[..., 0]}.get(mask)
        if seen is not None:  # by rows of sources, with the first always looked at
            seen = seen.unsqueeze(-2) | (torch.arange(x.shape[-2]) == 0) if mask == "bool" else seen.unsqueeze(-2)
        return nn.functional.scaled_dot_product_attention(query, key, value, seen, is_causal=mask == "causal")

    source = opened(net(forward, inputs=nn.Linear(4, 18)), f"x:float32[{dims}]")
    conversion = convert(source)
    assert not conversion.choices
    assert_same(source, conversion.model, rows=[1, 3], lengths=[7, 2])


# -- Failures -----------------------------------------------------------------------------------------------


def short(error: BaseException) -> bool:
    return str(error).count("\n") <= 1 and len(str(error)) < 400


class Gate(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x - 1


class Calling(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return branching(x)


def branching(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.sum() > 0 else x


class Singular(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svd(x)[1]


def test_control_flow_on_values_is_named() -> None:
    model = net(lambda self, x: self.block(self.dense(x)), block=nn.Sequential(nn.ReLU(), Gate()))
    with pytest.raises(
        ConversionError, match=r"in block\.1, a Gate \(test_torch\.py:\d+: return x \+ 1 if"
    ) as caught:
        convert(opened(model, MATRIX))
    assert short(caught.value) and "torch.where" in str(caught.value)


def test_a_branch_in_a_function_is_named_with_the_module_that_calls_it() -> None:
    model = net(lambda self, x: self.block(self.dense(x)), block=nn.Sequential(nn.ReLU(), Calling()))
    with pytest.raises(ConversionError, match=r"in block\.1, a Calling \(test_torch\.py:\d+: return x \* 2 if"):
        convert(opened(model, MATRIX))


def test_an_operator_without_onnx_is_named() -> None:
    model = net(lambda self, x: self.block(self.dense(x)), block=nn.Sequential(nn.ReLU(), Singular()))
    with pytest.raises(
        ConversionError, match=r"no ONNX for aten\._linalg_svd \(in block\.1, a Singular\)"
    ) as caught:
        convert(opened(model, SERIES))
    assert short(caught.value)


def test_any_other_failure_is_short() -> None:
    def forward(self, x):
        return self.dense(x) + float(memoryview(x[0, :1].numpy())[0])

    with pytest.raises(ConversionError, match=r"test_torch\.py:\d+: return self\.dense") as caught:
        convert(opened(net(forward), MATRIX))
    assert short(caught.value)


@pytest.mark.parametrize("opset", [18, 21, 23, 25])
def test_every_opset_that_the_exporter_reaches(opset: int) -> None:
    assert FRAMEWORK.max_opset == 25 and 18 <= FRAMEWORK.default_opset <= 25
    source = opened(net(lambda self, x: nn.functional.gelu(self.dense(x)).softmax(-1).sum(1)), MATRIX)
    model = convert(source, opset).model
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert_same(source, model, rows=[3], lengths=[1])


@pytest.mark.parametrize("opset", [7, 12, 26])
def test_an_opset_beyond_reach_is_an_error(opset: int) -> None:
    """The exporter only logs it, and writes another opset."""
    source = opened(net(lambda self, x: nn.functional.gelu(self.dense(x)).softmax(-1).sum(1)), MATRIX)
    with pytest.raises(ConversionError, match=rf"in opset {opset}: it stays at 18.*--opset 18 to 25") as caught:
        convert(source, opset)
    assert short(caught.value)


# -- TorchScript --------------------------------------------------------------------------------------------


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor, shift: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.dropout(self.dense(x))
        if bool(x.sum() > 0):
            y = y + 1
        return y, y.softmax(-1)


def scripted(path: Path, module: nn.Module) -> Path:
    with quiet():
        torch.jit.save(torch.jit.script(module), path)
    return path


def test_torchscript_is_converted_by_the_older_exporter(tmp_path: Path) -> None:
    source = opened(scripted(tmp_path / "model.pt", Branch()), MATRIX)
    conversion = convert(source)
    assert shapes(conversion.model.graph.input) == {"x": [BATCH, 4]}
    assert "deprecated" in conversion.choices[0] and "torch.export.save" in conversion.choices[0]
    assert_same(source, conversion.model, lengths=[1])


class Everything(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor, times: int = 2) -> dict[str, torch.Tensor]:
        return {"sum": x + y * times, "copy": x}


def test_torchscript_with_a_default_and_a_dict(tmp_path: Path) -> None:
    source = opened(scripted(tmp_path / "model.pt", Everything()), "y:float32[batch,4]", MATRIX)
    conversion = convert(source)
    assert list(shapes(conversion.model.graph.output)) == ["sum", "copy"]
    assert_same(source, conversion.model, lengths=[1])


def test_torchscript_stops_at_its_own_opset(tmp_path: Path) -> None:
    source = opened(scripted(tmp_path / "model.pt", Branch()), MATRIX)
    assert_same(source, convert(source, 11).model, rows=[3], lengths=[1])
    with pytest.raises(ConversionError, match=r"stops at opset 20.*torch\.export\.save") as caught:
        convert(source, 21)
    assert short(caught.value)


def test_a_trace_that_kept_its_rows_is_fixed_to_them(tmp_path: Path) -> None:
    example = torch.randn(EXPORTED_AT, 4)
    with quiet():
        traced = torch.jit.trace(net(lambda self, x: self.dense(x) + torch.ones(x.shape[0], 1)), example)
        torch.jit.save(torch.jit.trace(net(lambda self, x: self.dense(x.view(5, 4))), example), tmp_path / "t.pt")
    assert_same(opened(traced, MATRIX), convert(opened(traced, MATRIX)).model, lengths=[1])
    source = opened(tmp_path / "t.pt", MATRIX)
    conversion = convert(source)
    assert shapes(conversion.model.graph.input) == {"x": [EXPORTED_AT, 4]}
    assert (
        conversion.choices[1]
        == f"Exported for exactly {EXPORTED_AT} rows: the model fails with {EXPORTED_AT + 1}."
    )


def test_torchscript_that_the_exporter_refuses(tmp_path: Path) -> None:
    source = opened(scripted(tmp_path / "model.pt", Singular()), "x:float32[batch,3,3]")
    with pytest.raises(ConversionError, match=r"aten::linalg_svd.*\n.*torch\.export\.save") as caught:
        convert(source)
    assert str(caught.value).count("\n") == 1


# -- No side effects ----------------------------------------------------------------------------------------


def test_it_is_silent_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    level = logging.getLogger("torch").level
    model = net(lambda self, x: self.block(self.dense(x)), block=nn.Sequential(Gate()))
    with pytest.raises(ConversionError):
        convert(opened(model, MATRIX))
    convert(opened(net(lambda self, x: self.layer(x), layer=nn.LSTM(4, 4)), "x:float32[length,batch,4]"))
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
    assert logging.getLogger("torch").level == level
    with pytest.warns(UserWarning, match="still heard"):
        warnings.warn("still heard", stacklevel=1)


@pytest.mark.parametrize("rich", [False, True])
def test_the_live_module_is_left_as_it_was(rich: bool) -> None:
    def forward(self, x):
        y = self.dropout(self.norm(self.dense(x)))
        return Output(y) if rich else y

    model = net(forward, norm=nn.BatchNorm1d(4), dropout=nn.Dropout(0.5)).train()
    model.norm.eval()
    model.dense.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training = [module.training for module in model.modules()]
    source = opened(model, MATRIX)
    conversion = convert(source)
    assert [module.training for module in model.modules()] == training
    assert [weight.requires_grad for weight in model.parameters()] == [False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.is_grad_enabled()
    output = model(torch.zeros(2, 4))
    (output.logits if rich else output).sum().backward()
    assert model.dense.bias.grad is not None
    assert_same(source, conversion.model, rows=[3], lengths=[1])


def test_the_model_has_no_path_of_the_machine() -> None:
    content = convert(opened(net(lambda self, x: self.dense(x).relu()), MATRIX)).model.SerializeToString()
    assert b"dense" in content and b"site-packages" not in content
    assert str(Path(__file__).parent).encode() not in content and b"return" not in content


class LongerThan16(torch.nn.Module):
    """Cuts what is long, which a trace of short rows does not show."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 4)

    def forward(self, x):
        if x.shape[1] > 16:
            x = x[:, -16:]
        return self.linear(x).mean(1)


def test_a_branch_on_a_length_is_no_dynamic_length(tmp_path):
    with pytest.raises(ConversionError, match=r"dimension 1 of input 'x' is 17 than where it is .*16") as caught:
        onnxtool.convert(LongerThan16(), tmp_path / "m.onnx", inputs=["x:float32[batch,sequence,8]"])
    remedy = re.search(r"--input (\S+)", str(caught.value))[1]
    assert onnxtool.convert(LongerThan16(), tmp_path / "m.onnx", inputs=[remedy])


def test_a_bound_of_the_models_own_stays_dynamic(tmp_path):
    class Positions(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Parameter(torch.randn(20, 8))

        def forward(self, x):
            return x + self.table[: x.shape[1]]

    assert onnxtool.convert(Positions(), tmp_path / "m.onnx", inputs=["x:float32[batch,sequence,8]"])
    assert onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape.dim[1].dim_param == "sequence"


def test_distributions_are_not_checked_in_the_trace() -> None:
    class Policy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = torch.distributions.Categorical(logits=self.net(x))
            return found.probs.argmax(dim=1), found.probs

    before = torch.distributions.Distribution._validate_args
    source = FRAMEWORK.wrap(Policy().eval(), LoadOptions(inputs=(TensorSpec.parse("x:float32[batch,4]"),)))
    rows = {"x": np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)}
    model = FRAMEWORK.convert(source, rows, ConvertOptions()).model
    label, shares = onnxruntime.InferenceSession(model.SerializeToString()).run(None, rows)
    want = source.predict(rows)
    assert np.array_equal(label, want["output_0"])
    np.testing.assert_allclose(shares, want["output_1"], rtol=1e-5)
    assert torch.distributions.Distribution._validate_args == before
