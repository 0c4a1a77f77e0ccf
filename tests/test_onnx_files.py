"""ONNX files that mean harm, or are damaged: each ends in an error of ours, within its limits, by every verb."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxtool
from onnxtool.converters.graph.optimizers import optimizers, rewrite
from onnxtool.errors import ModelError
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.onnx.isolated import isolated

CLI = Path(sys.executable).with_name("onnxtool")
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
node = helper.make_node


def value(name, kind=TensorProto.FLOAT, shape=("batch", 4)):
    return helper.make_tensor_value_info(name, kind, list(shape))


def constant(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def model(nodes, constants=(), kind=TensorProto.FLOAT, functions=(), sparse=()):
    graph = helper.make_graph(nodes, "g", [value("x", kind)], [value("y", kind)], list(constants))
    graph.sparse_initializer.extend(sparse)
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8, functions=list(functions))


def function(name, nodes, inputs=("a",), outputs=("b",)):
    return helper.make_function("own", name, list(inputs), list(outputs), nodes, OPSETS)


def dividing():
    """The least whole number by -1, of which processors make a signal."""
    numbers = [constant("m", np.full(4, -(2**63), np.int64)), constant("z", np.full(4, -1, np.int64))]
    return model([node("Div", ["m", "z"], ["d"]), node("Mul", ["x", "d"], ["y"])], numbers, TensorProto.INT64)


def looping():
    ones = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["p"], ["q"]), node("Add", ["v", "one"], ["u"])],
        "b",
        [ones("i", TensorProto.INT64, []), ones("p", TensorProto.BOOL, []), value("v")],
        [ones("q", TensorProto.BOOL, []), value("u")],
        [constant("one", np.float32(1))],
    )
    return model(
        [node("Loop", ["m", "t", "x"], ["y"], body=body)],
        [constant("m", np.int64(2**62)), constant("t", np.array(True))],
    )


def expanding():
    """Eight bytes that ask for 64 GiB."""
    made = [node("ConstantOfShape", ["s"], ["c"]), node("ReduceSum", ["c"], ["r"], keepdims=0)]
    return model([*made, node("Add", ["x", "r"], ["y"])], [constant("s", np.array([2**34], np.int64))])


def laughing(levels=12, calls=10):
    """Functions that call functions that call functions."""
    functions = [function("f0", [node("Relu", ["a"], ["b"])])]
    for level in range(1, levels):
        names = ["a", *(f"t{call}" for call in range(calls - 1)), "b"]
        inner = [node(f"f{level - 1}", [names[c]], [names[c + 1]], domain="own") for c in range(calls)]
        functions.append(function(f"f{level}", inner))
    return model([node(f"f{levels - 1}", ["x"], ["y"], domain="own")], functions=functions)


def circling():
    calls = [
        function("f", [node("g", ["a"], ["b"], domain="own")]),
        function("g", [node("f", ["a"], ["b"], domain="own")]),
    ]
    return model([node("f", ["x"], ["y"], domain="own")], functions=calls)


def stored(*locations, **entries):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, text in [*(("location", place) for place in locations), *entries.items()]:
        tensor.external_data.add(key=key, value=str(text))
    return tensor


def adding(tensor):
    return model([node("Add", ["x", "w"], ["y"])], [tensor])


def in_function(tensor):
    inner = [node("Constant", [], ["k"], value=tensor), node("Add", ["a", "k"], ["b"])]
    return model([node("f", ["x"], ["y"], domain="own")], functions=[function("f", inner)])


def in_sparse(tensor):
    sparse = onnx.SparseTensorProto(dims=[4], values=tensor, indices=constant("i", np.arange(4)))
    return model([node("Add", ["x", "w"], ["y"])], sparse=[sparse])


def negative():
    return adding(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-4], raw_data=bytes(16)))


REFUSED = {
    "a negative size": (negative(), "negative size"),
    "no type": (
        adding(TensorProto(name="w", data_type=99, dims=[4], raw_data=bytes(16))),
        "no type that there is",
    ),
    "nested functions": (laughing(), "1,000,000 are the most"),
    "functions in a circle": (circling(), "calls itself"),
    "two places": (adding(stored("w.bin", "../secret")), "names 2 places"),
    "no place": (adding(stored()), "names no places"),
    "an address": (adding(stored("*/_ORT_MEM_ADDR_/*", offset=4096, length=16)), "an address in memory"),
    "an offset beyond files": (adding(stored("w.bin", offset=2**62)), "has the offset"),
    "an offset that is none": (adding(stored("w.bin", offset="-1")), "has the offset"),
    "a length that is none": (adding(stored("w.bin", length="1e9")), "has the length"),
    "a secret in a function": (in_function(stored("../secret")), "outside of its folder"),
    "a secret in a sparse tensor": (in_sparse(stored("../secret")), "outside of its folder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_honest_file_says_is_refused_before_anything_native_reads_it(name, tmp_path):
    proto, message = REFUSED[name]
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    (tmp_path / "w.bin").write_bytes(bytes(16))
    with pytest.raises(ModelError, match=message):
        OnnxModel.read(path)
    with pytest.raises(ModelError, match=message):
        onnxtool.lint(path, fix=True, output=tmp_path / "fixed.onnx")
    with pytest.raises(ModelError, match=message):
        onnxtool.verify(path, path)
    with pytest.raises(ModelError, match=message):
        onnxtool.bench(path)


def test_functions_that_expand_within_reason_run(tmp_path):
    (tmp_path / "m.onnx").write_bytes(laughing(3, 3).SerializeToString())
    assert onnxtool.verify(tmp_path / "m.onnx", tmp_path / "m.onnx")


RUNNING = {
    "verify": lambda path: onnxtool.verify(path, path),
    "convert": lambda path: onnxtool.convert(path, path.with_name("out.onnx")),
    "lint": lambda path: onnxtool.lint(path, fix=True, output=path.with_name("out.onnx")),
    "bundle": lambda path: onnxtool.bundle(path, path, path.with_name("bundle")),
}


@pytest.mark.parametrize("verb", RUNNING)
def test_a_model_that_ends_its_process_is_one_error_in_python(verb, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(dividing().SerializeToString())
    with pytest.raises(ModelError, match=r"m\.onnx: The model ended the process that ran it, by SIGFPE"):
        RUNNING[verb](path)
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_bench_fails_the_cell_of_a_model_that_ends_its_process(tmp_path):
    (tmp_path / "m.onnx").write_bytes(dividing().SerializeToString())
    (cell,) = onnxtool.bench(tmp_path / "m.onnx", duration=0.05).subjects[0].bench.cells
    assert cell.status == "failed"
    assert "SIGFPE" in cell.reason


def test_a_model_that_asks_for_all_memory_is_one_error(tmp_path):
    (tmp_path / "m.onnx").write_bytes(expanding().SerializeToString())
    with pytest.raises(ModelError, match="alloc"):
        onnxtool.verify(tmp_path / "m.onnx", tmp_path / "m.onnx", sandbox=onnxtool.Limits(memory=2 << 30))


def test_a_model_that_never_ends_is_ended(tmp_path):
    (tmp_path / "m.onnx").write_bytes(looping().SerializeToString())
    with pytest.raises(ModelError, match=r"ran longer than 6 s.*--sandbox-timeout"):
        onnxtool.verify(tmp_path / "m.onnx", tmp_path / "m.onnx", sandbox=onnxtool.Limits(timeout=6))


@pytest.mark.parametrize("stop", ["SIGINT", "SIGTERM"])
def test_an_interrupt_ends_a_model_that_never_does(tmp_path, stop):
    (tmp_path / "m.onnx").write_bytes(looping().SerializeToString())
    running = subprocess.Popen(
        [CLI, "verify", "m.onnx", "m.onnx"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (runtimes := [child for child in psutil.Process(running.pid).children() if busy(child)]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    began = time.monotonic()
    running.send_signal(getattr(__import__("signal"), stop))
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 2
    assert "interrupted" in errors
    assert time.monotonic() - began < 20
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in runtimes)


def busy(process):
    """Whether it is the process of a model, and runs it."""
    try:
        return "runtime_worker" in " ".join(process.cmdline()) and process.cpu_times().user > 1.5
    except psutil.NoSuchProcess:
        return False


def test_external_data_are_read_in_the_process_of_a_model(tmp_path):
    (tmp_path / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (tmp_path / "m.onnx").write_bytes(adding(stored("w.bin", offset=0, length=16)).SerializeToString())
    assert onnxtool.verify(tmp_path / "m.onnx", tmp_path / "m.onnx")


def test_without_a_sandbox_a_model_runs_in_this_process(tmp_path):
    (tmp_path / "m.onnx").write_bytes(laughing(2, 1).SerializeToString())
    before = len(psutil.Process().children())
    assert onnxtool.verify(tmp_path / "m.onnx", tmp_path / "m.onnx", sandbox=None)
    assert len(psutil.Process().children()) == before


@pytest.mark.parametrize("name", [optimizer.name for optimizer in optimizers("full")])
def test_an_optimizer_runs_in_the_process_of_a_model(name):
    optimizer = next(found for found in optimizers("full") if found.name == name)
    sound = laughing(2, 1)
    here = rewrite(sound, optimizer)
    with isolated(onnxtool.Limits()):
        assert rewrite(sound, optimizer) == here
        with pytest.raises(ModelError, match="ended the process that ran it, by SIGFPE"):
            rewrite(dividing(), optimizer)  # each computes what is constant
        assert rewrite(sound, optimizer)
