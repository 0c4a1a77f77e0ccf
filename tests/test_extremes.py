"""What lies at the edges: two runs to one place, clocks that jump, memory that runs out, names in every script."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

CI = {**os.environ, "CI": "true"}

WRITER = """
import sys
from pathlib import Path
import numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
from onnxtool.converters import finish
from onnxtool.files import staged_path
from onnxtool.models import artifact

artifact.INLINE_LIMIT = 100  # as if it were beyond 2 GB: weights lie beside it
mine = float(sys.argv[2])
value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1000])
weights = numpy_helper.from_array(np.full(1000, mine, np.float32), "w")
graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], f"of {mine}", [value],
                          [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1000])], [weights])
model = helper.make_model(graph)
print("ready", flush=True)
for _ in sys.stdin:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with staged_path(Path(sys.argv[1])) as staged:
        finish.write(copy, staged)
    print("done", flush=True)
"""


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)], env=CI, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def test_weights_and_graph_are_of_one_run(tmp_path):
    target = tmp_path / "out.onnx"
    writers = [start("-c", WRITER, target, number, stdin=subprocess.PIPE) for number in (1, 2)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for _ in range(150):
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        for writer in writers:
            assert writer.stdout.readline() == "done\n"
        model = onnx.load(target)
        weights = numpy_helper.to_array(model.graph.initializer[0])
        assert model.graph.name == f"of {weights[0]}"
        assert np.ptp(weights) == 0
    for writer in writers:
        writer.communicate()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.onnx", "out.onnx.data"]
