from __future__ import annotations

import io

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxtool.bench.plan import CellPlan
from onnxtool.bench.task import SourceTask, Task, read_answer, read_task, write_answer, write_task
from onnxtool.models.rows.channel import receive, send
from onnxtool.models.signature import TensorSpec
from onnxtool.models.source import LoadOptions
from onnxtool.reports.model import Cell

numbers = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
)
texts = hnp.arrays(object, hnp.array_shapes(min_dims=1, max_dims=2, min_side=0), elements=st.text())


def passed_on(tensors):
    file = io.BytesIO()
    send(file, {"a": 1}, tensors)
    file.seek(0)
    content, received = receive(file)
    assert content == {"a": 1}
    return received


@given(st.dictionaries(st.text(), numbers | texts, max_size=3))
def test_arrays_arrive_as_they_were(tensors):
    received = passed_on(tensors)
    assert list(received) == list(tensors)
    for name, array in tensors.items():
        assert received[name].dtype == array.dtype
        assert received[name].shape == array.shape
        np.testing.assert_array_equal(received[name], array)


def test_bfloat16_and_fixed_width_text():
    received = passed_on({"file": np.ones((2, 3), ml_dtypes.bfloat16), "s": np.array([["a\0", "ü\n"]])})
    assert received["file"].dtype == ml_dtypes.bfloat16
    assert received["s"].tolist() == [["a", "ü\n"]]  # NumPy itself drops the trailing NUL of fixed-width text


def test_columns_of_a_matrix_in_fortran_order():
    array = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    np.testing.assert_array_equal(passed_on({"x": array})["x"], array)


@given(st.data())
def test_an_answer_cut_short_is_an_error(data):
    file = io.BytesIO()
    write_answer(file, Cell(provider="p", batch=1, threads=None, status="measured"), np.arange(50))
    whole = file.getvalue()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError):
        read_answer(io.BytesIO(whole[:cut]))


@given(st.binary(max_size=200))
def test_garbage_is_an_error(garbage):
    with pytest.raises(ValueError):
        read_answer(io.BytesIO(garbage))


def test_task_of_a_source_keeps_its_options(tmp_path):
    options = LoadOptions(
        trust=("a.B",),
        inputs=(TensorSpec("x", "float32", ("batch", 4), columns=("a", "b", "c", "d")),),
        weights=tmp_path / "weights",
        signature="serving_default",
        data={"city": np.array(["Bern", "Ulm"], dtype=object)},
    )
    inputs = {"x": np.ones((2, 4), np.float32)}
    task = Task(
        plan=CellPlan("source", 2, None, options=(("a", "1"), ("b", "2"))),
        duration_s=0.5,
        seed=3,
        model=SourceTask("m:build", options),
        inputs=inputs,
    )
    file = io.BytesIO()
    write_task(file, task)
    file.seek(0)
    received = read_task(file)
    assert (received.plan, received.duration_s, received.seed) == (task.plan, 0.5, 3)
    np.testing.assert_array_equal(received.inputs["x"], inputs["x"])
    got = received.model.options
    assert got.data["city"].tolist() == ["Bern", "Ulm"]
    assert (got.trust, got.inputs, got.weights, got.signature) == (
        options.trust, options.inputs, options.weights, options.signature,
    )  # fmt: skip
