"""What ML.NET does with every model, however it is written: no rule can change it, and docs/mlnet.md says it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

FLOATS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


def floats(values: Any, dtype: str = "float32") -> dict[str, Any]:
    return {"x": {"dtype": dtype, "values": values}}


JOBS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    # The name: the shape of x (and of y, its negative), and the rest of the job.
    "a row each": (["N", 3], {"columns": floats(FLOATS)}),
    "another case": (["N", 3], {"columns": {"X": {"dtype": "float32", "values": FLOATS}}}),
    "double for float": (["N", 3], {"columns": floats(FLOATS, "float64")}),
    "integers for float": (["N", 3], {"columns": floats([[1, 2, 3], [4, 5, 6]], "int64")}),
    "scalar column": (["N", 1], {"columns": floats([1.0, 2.0])}),
    "vector column of 1": (["N", 1], {"columns": floats([[1.0], [2.0]])}),
    "column too short": (["N", 4], {"columns": floats(FLOATS)}),
    "column twice as long": (["N", 3], {"columns": floats([[1.0, 2, 3, 4, 5, 6]])}),
    "image": (["N", 3, 1, 1], {"columns": floats(FLOATS)}),
    "unknown, with a shape dictionary": (
        ["N", "K"],
        {"columns": floats(FLOATS), "shapes": {"x": [1, 3], "y": [1, 3]}},
    ),
    "unknown, of any size": (["N", "K"], {"columns": floats([[1.0, 2.0], [3.0]])}),
    "another shape by dictionary": (["N", 3], {"columns": floats(FLOATS), "shapes": {"x": [1, 4]}}),
    "another rank by dictionary": (["N", 3], {"columns": floats(FLOATS), "shapes": {"x": [3]}}),
    "one output requested": (["N", 3], {"columns": floats(FLOATS), "outputs": ["y"]}),
    "saved and loaded": (["N", 3], {"columns": floats(FLOATS), "zip": True}),
}


@pytest.fixture(scope="module")
def answers(mlnet, tmp_path_factory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("facts")
    jobs = []
    for number, (shape, job) in enumerate(JOBS.values()):
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
        graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "facts", values[:1], values[1:])
        path = folder / f"{number}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), path)
        jobs.append({"model": path, **job})
    return dict(zip(JOBS, mlnet(jobs, "bundled"), strict=True))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a row each", "Vector<Single, 1, 3>"),
        ("image", "Vector<Single, 1, 3, 1, 1>"),
        ("unknown, with a shape dictionary", "Vector<Single, 1, 3>"),
        ("one output requested", "Vector<Single, 1, 3>"),
        ("saved and loaded", "Vector<Single, 1, 3>"),
        ("scalar column", "Vector<Single, 1, 1>"),
        ("vector column of 1", "Vector<Single, 1, 1>"),
    ],
)
def test_outputs_are_vectors_of_the_declared_shape_a_row_each(answers, name, kind):
    [output] = answers[name]["columns"].values()
    assert output["type"] == kind
    given = JOBS[name][1]["columns"]["x"]["values"]
    np.testing.assert_array_equal(output["values"], -np.reshape(given, (len(given), -1)))


@pytest.mark.parametrize(
    ("name", "stage", "message"),
    [
        ("another case", "fit", "Could not find input column 'x'"),
        ("double for float", "fit", "expected Single, got Vector<Double, 3>"),
        ("integers for float", "fit", "expected Single, got Vector<Int64, 3>"),
        ("column too short", "fit", "Input 'x' has shape 1,4, but input data is of length 3"),
        # Fitting requires a multiple only (OnnxTransform.cs), and reading a row the exact length.
        ("column twice as long", "score", "Length of memory (6) must match product of dimensions (3)"),
        ("unknown, of any size", "fit", "Variable length input columns not supported"),  # as from 2.0 on they are
        ("another shape by dictionary", "load", "is not compatible with the shape -1,3"),
        ("another rank by dictionary", "load", "is not compatible with the shape -1,3"),
    ],
)
def test_columns_must_fit_exactly(answers, name, stage, message):
    error = answers[name]["error"]
    assert error["stage"] == stage
    assert message in error["message"]
