from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxtool.converters.framework import frameworks

MISBEHAVING = '''
"""A framework from another distribution, registered as any outsider registers one."""

import os, signal, subprocess, sys, time
from pathlib import Path

from onnxtool.converters.framework import Framework
from onnxtool.models.signature import TensorSpec
from onnxtool.models.source import SourceModel


class Model:
    def __init__(self, action):
        self.action = action


class Source(SourceModel):
    framework = "misbehaving"
    framework_version = "1"
    inputs = (TensorSpec("x", "float32", ("batch", 4)),)

    def __init__(self, model):
        self.model = model

    def predict(self, tensors):
        action = self.model.action
        if action == "crash":
            print("about to crash", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if action == "exit":
            sys.exit(3)
        if action == "hang":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            print("child", child.pid, flush=True)
            time.sleep(600)
        if action == "hang at exit":
            import threading
            threading.Thread(target=time.sleep, args=(600,)).start()
            self.model.action = "fine"
        if action == "garbage":
            os.write(1, os.urandom(1 << 12) + b"{}\\n")
            print("[" * 100)
        if action == "flood":
            for _ in range(64):
                os.write(1, b"flood " * 200_000)
            self.model.action = "fine"
        if action == "tell threads":
            raise RuntimeError("OMP_NUM_THREADS is " + os.environ.get("OMP_NUM_THREADS", "not set"))
        if action == "memory":
            raise MemoryError("no memory left")
        return {"y": tensors["x"][:, :3]}


class Misbehaving(Framework):
    name = "misbehaving"
    extra = "misbehaving"
    max_opset = default_opset = 17

    def recognises(self, source):
        return source.endswith(".misbehaving")

    def owns(self, model):
        return isinstance(model, Model)

    def load(self, source, options):
        if options.signature:
            raise RuntimeError(f"{options.signature} {options.inputs} {options.data}")
        return Model(Path(source).read_text())

    def wrap(self, model, options):
        return Source(model)

    def convert(self, source, example, options):
        raise NotImplementedError


FRAMEWORK = Misbehaving()
'''


@pytest.fixture
def misbehaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make a source file that does what it is named for when it is run."""
    site = tmp_path / "site"
    info = site / "misbehaving-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "misbehaving.py").write_text(MISBEHAVING)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: misbehaving\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[onnxtool.frameworks]\nmisbehaving = misbehaving:FRAMEWORK\n")
    monkeypatch.syspath_prepend(site)
    frameworks.cache_clear()  # another test may have loaded the frameworks before this one was there

    def make(action: str) -> str:
        path = tmp_path / "model.misbehaving"
        path.write_text(action)
        return str(path)

    yield make
    frameworks.cache_clear()
    sys.modules.pop("misbehaving", None)


def dense(batch: int | str = "batch", width: int = 4, unused: bool = False) -> onnx.ModelProto:
    """Gemm and Relu: x [batch, width] to y [batch, 3]."""
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])],
        [
            onnx.numpy_helper.from_array(np.full((width, 3), 0.1, dtype=np.float32), "w"),
            onnx.numpy_helper.from_array(np.zeros(3, dtype=np.float32), "b"),
        ],
    )
    if unused:
        graph.initializer.append(helper.make_tensor("left_over", TensorProto.FLOAT, [1], [0.0]))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture
def save(tmp_path: Path):
    def write(model: onnx.ModelProto) -> Path:
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        return path

    return write


@pytest.fixture
def dense_model(save) -> Path:
    return save(dense())


@pytest.fixture
def make_dense():
    return dense
