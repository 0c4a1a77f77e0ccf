from dataclasses import replace

import numpy as np
import pytest

from onnxtool.errors import DataError
from onnxtool.models.signature import TensorSpec
from onnxtool.validators.parity.feeds import match_inputs


def specs(*texts):
    return [TensorSpec.parse(text) for text in texts]


ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_a_matrix_goes_into_a_column_each():
    feeds = match_inputs(specs("X:float32[batch,3]"), specs(*(f"{name}:float32[batch,1]" for name in "abc")), [])
    fed = feeds({"X": ROWS})
    assert list(fed) == ["a", "b", "c"]
    np.testing.assert_array_equal(np.hstack(list(fed.values())), ROWS)
    assert all(tensor.shape == (2, 1) for tensor in fed.values())


def test_columns_go_into_a_matrix_each_dtype():
    source = specs("a:float32[batch,1]", "t:string[batch,1]", "b:float32[batch,1]", "k:int64[batch,1]")
    onnx = specs("numbers:float32[batch,2]", "texts:string[batch,1]", "whole:int64[batch,1]")
    fed = match_inputs(source, onnx, [])(
        {
            "a": ROWS[:, :1],
            "t": np.array([["x"], ["y"]], object),
            "b": ROWS[:, 1:2],
            "k": np.array([[3], [4]]),
        }
    )
    np.testing.assert_array_equal(fed["numbers"], ROWS[:, :2])
    assert fed["texts"].tolist() == [["x"], ["y"]]
    assert fed["whole"].tolist() == [[3], [4]]


def test_rows_are_cast_for_the_onnx_model_and_what_the_cast_changes_is_known():
    feeds = match_inputs(
        specs("X:float64[batch,1]", "n:float32[batch,1]"), specs("X:float32[batch,1]", "n:int64[batch,1]"), []
    )
    rows = {"X": np.array([[0.1]]), "n": np.array([[3.0]])}
    assert feeds(rows)["X"].dtype == np.float32
    assert feeds(rows)["n"].tolist() == [[3]]
    assert feeds.as_cast(rows)["X"].item() == float(np.float32(0.1))
    assert feeds.as_cast(rows)["n"] is rows["n"]
    assert feeds.changed(rows) == {"X": "float64 to float32"}


def test_a_matrix_takes_the_columns_that_its_metadata_names():
    source = specs("a:float32[batch,1]", "b:float32[batch,1]", "c:float32[batch,1]")
    onnx = [
        replace(spec, columns=columns)
        for spec, columns in zip(
            specs("features:float32[batch,1]", "features_double:float64[batch,2]"),
            [("b",), ("c", "a")],
            strict=True,
        )
    ]
    rows = {"a": np.array([[0.1]]), "b": np.array([[1.0]]), "c": np.array([[0.3]])}
    fed = match_inputs(source, onnx, [])(rows)
    assert fed["features"].tolist() == [[1.0]]
    assert fed["features_double"].tolist() == [[0.3, 0.1]]


def test_a_number_a_row_fits_a_column():
    fed = match_inputs(specs("n:int32[batch]"), specs("n:int64[batch,1]"), [])({"n": np.array([1, 2], np.int32)})
    assert fed["n"].dtype == np.int64
    assert fed["n"].tolist() == [[1], [2]]


def test_an_input_that_onnx_does_not_have_is_ignored_and_reported():
    notes = []
    feeds = match_inputs(specs("a:float32[batch,1]", "b:float32[batch,1]"), specs("b:float32[batch,1]"), notes)
    assert list(feeds({"a": ROWS[:, :1], "b": ROWS[:, 1:2]})) == ["b"]
    assert "a" in notes[0]


@pytest.mark.parametrize(
    ("source", "onnx"),
    [
        (["X:float32[batch,3]"], ["a:float32[batch,1]", "b:float32[batch,1]"]),
        (["X:float32[batch,2]"], ["a:float32[batch,1]", "b:string[batch,1]"]),
        (["a:float32[batch,1]", "b:string[batch,1]"], ["X:float32[batch,2]"]),
        (["a:float32[batch,1]", "b:float32[batch,1]"], ["X:float32[batch,3]"]),
        (["x:int64[batch,1]"], ["x:float32[batch,1]"]),
        (["x:float32[batch,4,1]"], ["x:float32[batch,4]"]),
    ],
)
def test_what_does_not_fit_is_an_error(source, onnx):
    with pytest.raises(DataError, match="take different inputs"):
        match_inputs(specs(*source), specs(*onnx), [])


def test_a_column_of_its_own_dtype_stays_out_of_the_matrix_of_the_others():
    source = specs("id:float32[batch,1]", "a:float32[batch,1]", "b:float32[batch,1]")
    features = replace(specs("features:float32[batch,2]")[0], columns=("a", "b"))
    rows = {"id": np.array([[2**40 + 1]]), "a": np.array([[1.5]]), "b": np.array([[2.5]])}
    fed = match_inputs(source, [*specs("id:int64[batch,1]"), features], [])(rows)
    assert fed["id"].tolist() == [[2**40 + 1]]
    assert fed["features"].tolist() == [[1.5, 2.5]]
