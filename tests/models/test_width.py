"""The width of a graph's widest tensor, against what ONNX Runtime makes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import onnxtool
from onnxtool.models.onnx.width import widest_per_row


def graph(nodes, weights, dims):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    named = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    made = helper.make_graph(nodes, "g", [x], [y], named)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize("rows", [1, 17])
def test_the_widest_in_the_middle(rows):
    wide = graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("ReduceSum", ["h", "axis"], ["y"])],
        {"w": np.zeros((4, 5000), np.float32), "axis": np.array([1])},
        ["batch", 4],
    )
    assert widest_per_row(wide, {"x": (rows, 4)}, rows) == 5000


def test_lengths_count_and_shapes_that_are_computed():
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], end=2),
        helper.make_node("Concat", ["s", "seven"], ["t"], axis=0),
        helper.make_node("Unsqueeze", ["x", "last"], ["u"]),
        helper.make_node("Expand", ["u", "t"], ["y"]),
    ]
    made = graph(nodes, {"seven": np.array([7]), "last": np.array([-1])}, ["batch", "length"])
    assert widest_per_row(made, {"x": (2, 30)}, 2) == 7 * 30


def test_a_model_that_makes_no_sense_has_no_width():
    made = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.zeros((9, 9, 9), np.float32)}, [3, 4])
    assert widest_per_row(made, {"x": (3, 4)}, 3) == 1


def test_a_vocabulary_limits_the_rows_that_run_at_a_time(tmp_path):
    texts = [f"w{place} w{place + 1} w{place * 7}" for place in range(4000)]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, np.arange(4000) % 2)
    report = onnxtool.convert(model, tmp_path / "m.onnx", data={"text": np.array(texts, dtype=object)})
    words = len(model[0].vocabulary_)
    found = onnx.load(tmp_path / "m.onnx")
    assert widest_per_row(found, {"text": (17, 1)}, 17) == words
    assert max(report.subjects[0].parity.batches) == 2**24 // words < 3000
