"""The comparison of the table finds what is wrong, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import onnxtool
from benchmarks.coverage.bare import rows_off
from benchmarks.coverage.table import converted

ROWS, SPECIES = load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def model() -> LogisticRegression:
    return LogisticRegression(max_iter=1000).fit(ROWS, SPECIES)


def test_right_and_wrong(model: LogisticRegression, tmp_path: Path) -> None:
    onnxtool.convert(model, tmp_path / "m.onnx", data=ROWS)
    assert rows_off(model, ROWS, tmp_path / "m.onnx") == 0
    wrong = onnx.load(tmp_path / "m.onnx")
    floats = [tensor for tensor in wrong.graph.initializer if tensor.data_type in (1, 11)]
    for tensor in floats:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor) * np.asarray(1.1, "f4"), tensor.name)
        )
    for node in wrong.graph.node:
        for attribute in node.attribute:
            attribute.floats[:] = [value * 1.1 for value in attribute.floats]
    onnx.save(wrong, tmp_path / "wrong.onnx")
    assert rows_off(model, ROWS, tmp_path / "wrong.onnx") > 100


def test_a_verdict_that_is_untrue_is_called_so(model: LogisticRegression) -> None:
    assert converted(model, data=ROWS, rows_off=lambda path: 3) == ("untrue", "It passed, and 3 rows differ.")
