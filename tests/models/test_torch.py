"""Opening PyTorch models: files recognised by content, callables, signatures, predictions; nothing foreign runs."""

from __future__ import annotations

import collections
import dataclasses
import json
import pickle
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from onnxtool.converters.torch import FRAMEWORK
from onnxtool.errors import SourceError, UntrustedError, UsageError
from onnxtool.models.reference.torch import Transformer, resnet, transformer
from onnxtool.models.rows.inputs import make_inputs
from onnxtool.models.signature import TensorSpec
from onnxtool.models.source import LoadOptions
from onnxtool.models.torch import build, evaluating, named_tensors, to_array, to_tensor
from onnxtool.models.torch.files import kind_of, quiet, read_export, read_torchscript

BATCH = torch.export.Dim("batch")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        y = self.dropout(self.dense(x))
        return y if scale is None else y * scale


def inputs(*specs: str) -> LoadOptions:
    return LoadOptions(inputs=tuple(map(TensorSpec.parse, specs)))


def export(path: Path, module: nn.Module | None = None) -> Path:
    with quiet():
        program = torch.export.export((module or Net()).eval(), (torch.randn(2, 4),), dynamic_shapes=({0: BATCH},))
        torch.export.save(program, path)
    return path


def script(path: Path) -> Path:
    with quiet():
        torch.jit.save(torch.jit.script(Net()), path)
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a Python module that builds models."""
    (tmp_path / "onnxtool_project.py").write_text(
        textwrap.dedent(
            """
            from torch import nn

            made = nn.Linear(4, 3)

            def net():
                return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))

            def needs(width):
                return nn.Linear(width, 3)

            def number():
                return 3

            def broken():
                raise ValueError("no such layer")
            """
        )
    )
    (tmp_path / "onnxtool_unfinished.py").write_text("import onnxtool_is_not_there\n")
    (tmp_path / "onnxtool_failing.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    return tmp_path


# -- Files --------------------------------------------------------------------------------------------------


def test_files_are_recognised_by_their_content(tmp_path: Path) -> None:
    weights, legacy, module = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    torch.save(Net().state_dict(), weights)
    torch.save(Net().state_dict(), legacy, _use_new_zipfile_serialization=False)
    torch.save(Net(), module)
    assert kind_of(export(tmp_path / "model.bin.pt2").rename(tmp_path / "model.bin")) == "export"
    assert kind_of(script(tmp_path / "model.zip")) == "torchscript"
    assert [kind_of(path) for path in (weights, legacy, module)] == ["weights"] * 3
    other = tmp_path / "model.keras"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", "{}")
    empty = tmp_path / "empty.pt2"
    empty.touch()
    assert kind_of(other) is kind_of(empty) is kind_of(tmp_path) is kind_of(tmp_path / "none.pt2") is None


@pytest.mark.parametrize("write", [export, script])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_an_error(tmp_path: Path, write, keep: float) -> None:
    path = write(tmp_path / "model.pt2")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    assert FRAMEWORK.recognises(str(path))
    with pytest.raises(SourceError, match="cut short") as caught:
        FRAMEWORK.load(str(path), LoadOptions())
    assert str(caught.value).count("\n") <= 1


def test_a_damaged_program_is_an_error(tmp_path: Path) -> None:
    path = rewrite(export(tmp_path / "model.pt2"), lambda graph: graph["graph_module"].pop("graph"))
    with pytest.raises(SourceError, match=r"cannot be read by torch.*\n.*torch.export.save"):
        FRAMEWORK.load(str(path), LoadOptions())


@pytest.mark.parametrize("what", ["weights", "module"])
def test_weights_are_no_model(tmp_path: Path, what: str) -> None:
    path = tmp_path / "model.pt"
    torch.save(Net().state_dict() if what == "weights" else Net(), path)
    with pytest.raises(SourceError, match=r"package\.module:callable --weights .*model\.pt"):
        FRAMEWORK.load(str(path), LoadOptions())


def test_a_file_has_its_own_weights(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--weights goes with"):
        FRAMEWORK.load(str(export(tmp_path / "model.pt2")), LoadOptions(weights=tmp_path / "w.pt"))


def test_archives_of_older_versions_are_read(tmp_path: Path) -> None:
    """Up to torch 2.7 the program lay in the zip's root, in these files."""
    from torch._export.serde.serialize import serialize

    with quiet():
        program = torch.export.load(export(tmp_path / "new.pt2"))
        parts = serialize(program)
    path = tmp_path / "old.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "8.0")
        archive.writestr("serialized_exported_program.json", parts.exported_program)
        archive.writestr("serialized_state_dict.pt", parts.state_dict)
        archive.writestr("serialized_constants.pt", parts.constants)
        archive.writestr("serialized_example_inputs.pt", parts.example_inputs)
    source = FRAMEWORK.wrap(FRAMEWORK.load(str(path), LoadOptions()), LoadOptions())
    x = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(
        source.predict({"x": x})["output"], program.module()(torch.from_numpy(x)).detach()
    )


# -- Nothing foreign runs -----------------------------------------------------------------------------------


class Bomb:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.victim,)


def rewrite(path: Path, change, **records: bytes) -> Path:
    """Change the graph of a `.pt2`, and replace records, as an attacker would."""
    old = torch._C.PyTorchFileReader(str(path))
    content = {name: old.get_record(name) for name in old.get_all_records()}
    graph = json.loads(content["models/model.json"])
    change(graph)
    content["models/model.json"] = json.dumps(graph).encode()
    content |= {name.replace("__", "/"): value for name, value in records.items()}
    writer = torch._C.PyTorchFileWriter(str(path))
    for name, value in content.items():
        if name not in ("version", ".data/serialization_id"):
            writer.write_record(name, value, len(value))
    writer.write_end_of_file()
    return path


def test_a_pickled_module_never_runs(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    path = tmp_path / "model.pt"
    torch.save({"weight": Bomb(victim)}, path)
    with pytest.raises(SourceError):
        FRAMEWORK.load(str(path), LoadOptions())
    with pytest.raises(UntrustedError, match="pickle of more than tensors"):
        build("torch.nn:Identity", path)
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(UntrustedError, match="state_dict"):
        build("torch.nn:Identity", path)
    assert not victim.exists()


def test_a_pickle_within_a_program_never_runs(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    bomb = tmp_path / "bomb"
    torch.save(((Bomb(victim),), {}), bomb)
    samples = rewrite(
        export(tmp_path / "samples.pt2"),
        lambda graph: None,
        **{"data__sample_inputs__model.pt": bomb.read_bytes()},
    )
    opaque = rewrite(
        export(tmp_path / "opaque.pt2"),
        lambda graph: None,
        data__constants__opaque_obj_0=pickle.dumps(Bomb(victim)),
    )
    library = rewrite(
        export(tmp_path / "library.pt2"), lambda graph: None, **{"data__aotinductor__model__x.so": b"\x7fELF"}
    )
    for path in (samples, opaque, library):
        with pytest.raises(UntrustedError, match="would run"):
            FRAMEWORK.load(str(path), LoadOptions())
    assert not victim.exists()


@pytest.mark.parametrize(
    "function",
    [
        "torch.os.system",
        "torch.load",
        "torch.ops.load_library",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "torch.ops.aten._print.default",
        "torch.ops.somebodys.operator.default",
        "torch.ops.higher_order.call_torchbind",
        "torch.ops.profiler._record_function_enter.default",
        "_operator.call",
        "_operator.methodcaller",
        "eval",
    ],
)
def test_a_program_calls_operators_only(tmp_path: Path, function: str) -> None:
    def change(graph) -> None:
        graph["graph_module"]["graph"]["nodes"][0]["target"] = function

    path = rewrite(export(tmp_path / "model.pt2"), change)
    with pytest.raises(UntrustedError, match=f"calls {function}, .*--trust {function}"):
        FRAMEWORK.load(str(path), LoadOptions())


@pytest.mark.parametrize(
    "expression", ["__import__('os').getcwd()", "eval('1')", "open(0)", "(lambda: 2)()", "[].x"]
)
def test_a_shape_is_a_formula(tmp_path: Path, expression: str) -> None:
    found = []

    def change(node) -> None:
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            change(value)
        if isinstance(node, dict) and "expr_str" in node:
            found.append(node["expr_str"])
            node["expr_str"] = expression

    path = rewrite(export(tmp_path / "model.pt2"), change)
    assert found
    with pytest.raises(UntrustedError, match="no plain formula"):
        FRAMEWORK.load(str(path), LoadOptions())


# -- Callables ----------------------------------------------------------------------------------------------


def test_a_callable_builds_the_module(project: Path) -> None:
    assert FRAMEWORK.recognises("onnxtool_project:net")
    assert not FRAMEWORK.recognises("onnxtool_project.net") and not FRAMEWORK.recognises("C:/models/net.pt")
    assert isinstance(FRAMEWORK.load("onnxtool_project:net", LoadOptions()), nn.Sequential)
    assert isinstance(build("onnxtool_project:made"), nn.Linear)
    assert isinstance(build("torch.nn:ReLU"), nn.ReLU)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("onnxtool_absent:net", "no Python module onnxtool_absent"),
        ("onnxtool_unfinished:net", "needs onnxtool_is_not_there, which is not installed"),
        ("onnxtool_failing:net", "fails on import: ZeroDivisionError"),
        ("onnxtool_project:nett", "has no nett. Did you mean net"),
        ("onnxtool_project:needs", "missing a required argument: 'width'"),
        ("onnxtool_project:number", "returns a int, not a torch.nn.Module"),
        ("onnxtool_project:broken", "fails: ValueError: no such layer"),
        ("onnxtool_project:__name__", "not something that builds a model"),
    ],
)
def test_a_callable_that_does_not(project: Path, reference: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        build(reference)
    assert str(caught.value).count("\n") <= 1


@pytest.mark.parametrize("kind", ["state dict", "checkpoint", "legacy", "safetensors"])
def test_weights_of_every_kind(project: Path, kind: str) -> None:
    state = {name: torch.randn_like(value) for name, value in build("onnxtool_project:net").state_dict().items()}
    path = project / "weights.bin"
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        content = {"state_dict": state, "epoch": 3} if kind == "checkpoint" else state
        torch.save(content, path, _use_new_zipfile_serialization=kind != "legacy")
    loaded = build("onnxtool_project:net", path).state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "net.", "module._orig_mod."])
def test_weights_under_a_prefix(project: Path, prefix: str) -> None:
    state = {name: torch.randn_like(value) for name, value in build("onnxtool_project:net").state_dict().items()}
    torch.save({"model_state_dict": {prefix + name: value for name, value in state.items()}}, project / "w.pt")
    loaded = build("onnxtool_project:net", project / "w.pt").state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_weights_of_which_a_file_keeps_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxtool_tied.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.table, self.head = torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5, bias=False)\n"
        "        self.head.weight = self.table.weight\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    kept = torch.randn(5, 3)
    safetensors.torch.save_file({"table.weight": kept}, tmp_path / "w")
    assert torch.equal(build("onnxtool_tied:Net", tmp_path / "w").head.weight, kept)


def test_weights_that_do_not_fit(project: Path) -> None:
    state = build("onnxtool_project:net").state_dict()
    state["2.weight"] = torch.zeros(7, 5)
    del state["2.bias"]
    torch.save(state | {f"head.{i}": torch.zeros(1) for i in range(9)}, project / "w.pt")
    with pytest.raises(SourceError) as caught:
        build("onnxtool_project:net", project / "w.pt")
    assert "1 missing in the file: 2.bias" in str(caught.value)
    assert "9 unknown to the model: head.0, head.1, head.2, head.3, head.4 and 4 more" in str(caught.value)
    assert "2.weight (file [7, 5], model [3, 5])" in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"nothing", b"\x80\x02}q", b"PK\x03\x04", b"\x10\0\0\0\0\0\0\0{broken json...."]
)
def test_weights_that_are_damaged(project: Path, content: bytes) -> None:
    (project / "w.pt").write_bytes(content)
    with pytest.raises(SourceError, match=r"--weights .*w\.pt"):
        build("onnxtool_project:net", project / "w.pt")
    with pytest.raises(SourceError, match="no such file"):
        build("onnxtool_project:net", project / "absent.pt")


# -- Signatures ---------------------------------------------------------------------------------------------


def specs(model: object, options: LoadOptions = LoadOptions()) -> list[str]:  # noqa: B008 - immutable
    return [str(spec) for spec in FRAMEWORK.wrap(model, options).inputs]


def test_the_user_says_what_the_module_takes() -> None:
    assert specs(Net(), inputs("scale:float32[batch,3]", "x:float32[batch,4]")) == [
        "x:float32[batch,4]", "scale:float32[batch,3]",
    ]  # fmt: skip
    for wrong in (["y:float32[batch,4]"], ["scale:float32[batch,3]"], ["x:float32[batch,4]"] * 2):
        with pytest.raises(UsageError, match=r"forward\(x, scale\)"):
            specs(Net(), inputs(*wrong))
    with pytest.raises(UsageError, match="no tensors of text"):
        specs(Net(), inputs("x:string[batch]"))


def test_without_a_signature_the_error_shows_how_to_give_one() -> None:
    with pytest.raises(UsageError, match=r"--input x:float32\[batch,\.\.\.\]$"):
        specs(Net())


def test_the_data_says_what_the_module_takes() -> None:
    array = np.zeros((9, 4))  # float64, as data is by habit
    assert specs(Net(), LoadOptions(data={"x": array, "label": np.zeros(9)})) == ["x:float32[batch,4]"]
    assert specs(Net(), LoadOptions(data={"": array})) == ["x:float32[batch,4]"]
    assert specs(Net().double(), LoadOptions(data={"": array})) == ["x:float64[batch,4]"]
    table = LoadOptions(data={name: np.arange(9) for name in "abcd"})
    assert specs(Net(), table) == ["x:float32[batch,4]"]
    assert FRAMEWORK.wrap(Net(), table).inputs[0].columns == ("a", "b", "c", "d")
    tokens = {"tokens": np.zeros((9, 7), np.int64), "mask": np.ones((9, 7), bool)}
    model = Transformer()
    del model.example_inputs
    assert specs(model, LoadOptions(data=tokens)) == ["tokens:int64[batch,length]", "mask:bool[batch,length]"]
    with pytest.raises(UsageError, match="--input tokens"):
        specs(model, LoadOptions(data={"x": array}))


@pytest.mark.parametrize(
    "example",
    [torch.zeros(5, 4), (torch.zeros(5, 4),), {"x": np.zeros((5, 4), np.float32)}],
    ids=["tensor", "tuple", "dict"],
)
@pytest.mark.parametrize("attribute", ["example_inputs", "example_input_array"])
def test_the_module_has_an_example(example: object, attribute: str) -> None:
    model = Net()
    setattr(model, attribute, example)
    assert specs(model) == ["x:float32[batch,4]"]
    setattr(model, attribute, "x")
    with pytest.raises(UsageError, match=f"Net.{attribute} is neither"):
        specs(model)


def test_a_program_knows_what_it_takes(tmp_path: Path) -> None:
    length = torch.export.Dim("length", max=64)
    shapes = {"tokens": {0: BATCH, 1: length}, "mask": {0: BATCH, 1: length}}
    model = transformer()
    with quiet():
        program = torch.export.export(model, (), model.example_inputs, dynamic_shapes=shapes)
    assert specs(program) == ["tokens:int64[batch,dim_1]", "mask:bool[batch,dim_1]"]
    named = inputs("mask:bool[rows,length]", "tokens:int64[rows,length]")
    assert specs(program, named) == ["tokens:int64[rows,length]", "mask:bool[rows,length]"]
    with pytest.raises(
        UsageError, match=r"exported with tokens:int64\[batch,dim_1\], mask.*runs with nothing else"
    ):
        specs(program, inputs("tokens:int64[batch,12]"))


# -- Predictions --------------------------------------------------------------------------------------------


def test_predict_evaluates_and_leaves_the_module_as_it_was() -> None:
    model = Net()
    model.dropout.eval()
    source = FRAMEWORK.wrap(model, inputs("x:float32[batch,4]"))
    x = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    x.flags.writeable = False
    first, second = source.predict({"x": x})["output"], source.predict({"x": x})["output"]
    np.testing.assert_array_equal(first, second)
    assert isinstance(first, np.ndarray) and first.dtype == np.float32
    assert model.training and model.dense.training and not model.dropout.training
    with pytest.raises(RuntimeError), evaluating(model):
        raise RuntimeError
    assert model.training


def test_predict_says_what_was_wrong() -> None:
    source = FRAMEWORK.wrap(Net(), inputs("x:float32[batch,5]"))
    with pytest.raises(SourceError, match=r"Net fails to run on x:float32\[2, 5\]: .*\n.*--input") as caught:
        source.predict({"x": np.zeros((2, 5), np.float32)})
    assert str(caught.value).count("\n") == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_float_goes_in_and_out(dtype: str) -> None:
    model = Net().to(getattr(torch, dtype))
    source = FRAMEWORK.wrap(model, inputs(f"x:{dtype}[batch,4]"))
    output = source.predict(make_inputs(source.inputs, 3, 0))["output"]
    assert output.dtype.name == dtype and np.isfinite(output.astype(np.float64)).all()


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int32", "int64", "float16", "float32", ml_dtypes.bfloat16]
)
@pytest.mark.parametrize("shape", [(), (0, 2), (3, 2)])
def test_arrays_survive_as_tensors(dtype, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    again = to_array(to_tensor(array))
    assert again.dtype == array.dtype and again.shape == array.shape
    np.testing.assert_array_equal(again, array)
    np.testing.assert_array_equal(to_array(to_tensor(array.T)), array.T)


def test_outputs_have_readable_names() -> None:
    pair = collections.namedtuple("pair", "mean scale")

    @dataclasses.dataclass
    class Output:
        logits: object
        hidden: object = None

    t = torch.zeros(1)

    def names(value: object, *taken: str) -> list[str]:
        return list(named_tensors(value, taken))

    assert names(t) == names((t,)) == names([t, None]) == ["output"]
    assert names((t, None, t)) == ["output_0", "output_1"]
    assert names({"z": t, "a": (t, {"b": t}), "n": 3}) == ["z", "a_0", "a_1_b"]
    assert names(Output(t, [t, t])) == ["logits", "hidden_0", "hidden_1"]
    assert names(Output(t)) == ["logits"]
    assert names(pair(t, (t,))) == ["mean", "scale"]
    assert names((t, {"x": t})) == ["output_0", "output_1_x"]
    assert names({"x": t, "a_b": t, "a": {"b": t}}, "x") == ["x_output", "a_b", "a_b_output"]


def test_domains_keep_tokens_within_the_vocabulary() -> None:
    model = transformer()
    with quiet():
        program = torch.export.export(model, (), model.example_inputs)
        scripted = torch.jit.script(nn.Sequential(nn.Embedding(17, 4)))
    for source in (FRAMEWORK.wrap(model, LoadOptions()), FRAMEWORK.wrap(program, LoadOptions())):
        domains = source.domains()
        assert domains["tokens"].high == 1000
        made = make_inputs(source.inputs, 64, 0, domains)
        assert 0.6 < made["mask"].mean() < 0.9
    assert FRAMEWORK.wrap(scripted, inputs("input:int64[batch]")).domains()["input"].high == 17
    assert not FRAMEWORK.wrap(resnet(), LoadOptions()).domains()


def test_each_input_has_the_vocabulary_of_its_own_embedding() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.kinds = nn.Embedding(50, 4), nn.Embedding(3, 4)

        def forward(self, words: Any, kinds: Any, places: Any, attention_mask: Any) -> Any:
            embedded = self.words(words) + self.kinds(kinds) + self.words(places + 1)
            return embedded * attention_mask.unsqueeze(-1)

    signature = [f"{name}:int64[batch,5]" for name in ("words", "kinds", "places", "attention_mask")]
    module = Two()
    with quiet():
        program = torch.export.export(module, tuple(torch.ones(2, 5, dtype=torch.int64) for _ in range(4)))
    for source in (FRAMEWORK.wrap(module, inputs(*signature)), FRAMEWORK.wrap(program, LoadOptions())):
        domains = source.domains()
        assert {name: domains[name].high for name in ("words", "kinds", "places")} == {
            "words": 50,
            "kinds": 3,
            "places": 3,
        }
        made = make_inputs(source.inputs, 64, 0, domains)
        assert set(np.unique(made["attention_mask"])) <= {0, 1}
        assert 0.5 < made["attention_mask"].mean() < 1
    assert not any(part._forward_pre_hooks for part in module.modules())


def test_it_owns_modules_and_programs_only(tmp_path: Path) -> None:
    program = FRAMEWORK.load(str(export(tmp_path / "model.pt2")), LoadOptions())
    assert FRAMEWORK.owns(Net()) and FRAMEWORK.owns(program)
    assert not FRAMEWORK.owns(torch.zeros(1)) and not FRAMEWORK.owns("model.pt2")


# -- Code that a file names -----------------------------------------------------------------------------------


class Saves(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "marker")
        return x


class Maps(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("secret", size=4)


class Computes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.recurrent = nn.GRU(4, 4, batch_first=True)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.recurrent(self.norm(x).unsqueeze(1))
        y, _ = self.attention(y, y, y)
        for turn in range(2):
            y = y + turn * torch.fft.fft(y).real.to(torch.float32)
        if x.size(0) == 0:
            raise RuntimeError("empty")
        return torch.special.expit(y.squeeze(1)) + torch.zeros(4, device=x.device, dtype=x.dtype)


def scripted(module: nn.Module, path: Path) -> Path:
    with quiet():
        torch.jit.save(torch.jit.script(module.eval()), path)
    return path


@pytest.mark.parametrize(("module", "name"), [(Saves, "torch.save"), (Maps, "torch.from_file")])
def test_torchscript_that_reaches_files_is_refused_unless_trusted(
    module: type[nn.Module], name: str, tmp_path: Path
) -> None:
    path = scripted(module(), tmp_path / "m.pt")
    with pytest.raises(UntrustedError, match=f"--trust {name}"):
        read_torchscript(path)
    assert isinstance(read_torchscript(path, [name]), torch.jit.ScriptModule)


@pytest.mark.parametrize(
    "line",
    [
        "t = torch\n    y = t.from_file",
        "torch  .  from_file",
        "x.save",
        "ops.aten.save",
        "ops.image.read_file",
        "(torch).save",
        "ops.prim.rpc_sync",
        "__torch__.torch.classes.dist_rpc.WorkerInfo",
    ],
)
def test_no_spelling_of_an_operator_gets_through(line: str, tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(scripted(nn.ReLU(), tmp_path / "m.pt")) as plain,
        zipfile.ZipFile(tmp_path / "e.pt", "w") as evil,
    ):
        for entry in plain.namelist():
            content = plain.read(entry)
            evil.writestr(entry, content + f"    {line}(x)\n".encode() if entry.endswith(".py") else content)
    with pytest.raises(UntrustedError):
        read_torchscript(tmp_path / "e.pt")


def test_torchscript_that_computes_opens(tmp_path: Path) -> None:
    assert isinstance(read_torchscript(scripted(Computes(), tmp_path / "m.pt")), torch.jit.ScriptModule)
    with quiet():
        traced = torch.jit.trace(Computes().eval(), torch.ones(2, 4), check_trace=False)
        torch.jit.save(traced, tmp_path / "t.pt")
    assert isinstance(read_torchscript(tmp_path / "t.pt"), torch.jit.ScriptModule)


@pytest.mark.parametrize("factory", ["stranger.factory", "os.getcwd"])
def test_a_tree_of_inputs_that_names_a_module_is_refused(
    factory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch would import it."""
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\nfactory = float\n")
    monkeypatch.syspath_prepend(tmp_path)
    module, _, name = factory.partition(".")
    spec = {"default_factory_module": module, "default_factory_name": name, "dict_context": ["a"]}
    tree = json.dumps([1, {"type": "collections.defaultdict", "context": json.dumps(spec), "children_spec": []}])
    with quiet():
        program = torch.export.export(Net().eval(), (torch.randn(2, 4),))
        torch.export.save(program, tmp_path / "plain.pt2")
    with zipfile.ZipFile(tmp_path / "plain.pt2") as plain, zipfile.ZipFile(tmp_path / "e.pt2", "w") as evil:
        for entry in plain.namelist():
            content = plain.read(entry)
            if "models/" in entry:
                graph = json.loads(content)
                for call in graph["graph_module"]["module_call_graph"]:
                    if call["signature"]:
                        call["signature"]["in_spec"] = tree
                content = json.dumps(graph).encode()
            evil.writestr(entry, content)
    with pytest.raises(UntrustedError, match=rf"--trust {factory}"):
        read_export(tmp_path / "e.pt2")
    assert not (tmp_path / "marker").exists()
