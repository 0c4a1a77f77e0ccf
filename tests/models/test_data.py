import json
from contextlib import suppress
from datetime import date
from decimal import Decimal
from functools import partial
from io import BytesIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from onnxtool.errors import DataError
from onnxtool.models.rows.channel import receive, send
from onnxtool.models.rows.data import UNNAMED, fit_data, read_data, to_arrays
from onnxtool.models.rows.stream import stream_data
from onnxtool.models.signature import TensorSpec

COLUMNS = (TensorSpec("age", "float32", ("batch", 1)), TensorSpec("city", "string", ("batch", 1)))
MATRIX = (TensorSpec("X", "float32", ("batch", 2), columns=("a", "b")),)


@pytest.fixture
def frame():
    return pd.DataFrame({"age": [31, 42, 53], "city": ["Oslo", None, "Rome"], "note": ["x", "y", "z"]})


@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
def test_tables_read_the_same_from_every_format(frame, tmp_path, kind):
    path = tmp_path / "rows.bin"  # the content decides, not the name
    write = {
        "csv": lambda: frame.to_csv(path, index=False),
        "parquet": lambda: frame.to_parquet(path),
        "json": lambda: frame.to_json(path, orient="records"),
    }
    write[kind]()
    data = read_data(path)
    assert list(data) == ["age", "city", "note"]
    assert data["city"].tolist() == ["Oslo", "", "Rome"]
    tensors, notes = fit_data(data, COLUMNS, str(path))
    assert tensors["age"].dtype == np.float32
    assert tensors["age"].shape == tensors["city"].shape == (3, 1)
    assert any("note" in note for note in notes)


def test_arrays_read_from_npz_npy_and_json(tmp_path):
    x, y = np.ones((4, 2), np.float32), np.arange(4)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    np.save(tmp_path / "a.npy", x)
    (tmp_path / "a.json").write_text(json.dumps({"x": x.tolist(), "y": y.tolist()}))
    assert set(read_data(tmp_path / "a.npz")) == {"x", "y"}
    assert set(read_data(tmp_path / "a.npy")) == {UNNAMED}
    np.testing.assert_array_equal(read_data(tmp_path / "a.json")["x"], x)


def test_a_pickle_inside_numpy_is_refused(tmp_path):
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"evil\.npy"):
        read_data(tmp_path / "evil.npy")


@pytest.mark.parametrize(
    "content", [b"", b"   \n", b"PK\x03\x04broken", b"\x93NUMPY", b"PAR1nothing", b"{bad json", b"\xff\xfe\x00"]
)
def test_damaged_files_are_one_error(tmp_path, content):
    path = tmp_path / "rows"
    path.write_bytes(content)
    with pytest.raises(DataError, match="rows"):
        read_data(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        read_data(tmp_path / "nowhere.csv")


def test_a_matrix_takes_its_columns_by_name_in_its_own_order(tmp_path):
    data = {"b": np.array([3.0, 4.0]), "id": np.array([1, 2]), "a": np.array([1, 2])}
    tensors, notes = fit_data(data, MATRIX, "rows.csv")
    np.testing.assert_array_equal(tensors["X"], [[1, 3], [2, 4]])
    assert tensors["X"].dtype == np.float32
    assert any("id" in note for note in notes)
    assert any("cast" in note for note in notes)


def test_columns_of_every_pandas_dtype_keep_their_values(tmp_path):
    frame = pd.DataFrame(
        {
            "nullable": pd.array([1, None, 2**40], dtype="Int64"),
            "truth": pd.array([True, None, False], dtype="boolean"),
            "text": pd.array(["a", None, "c"], dtype="string"),
            "category": pd.Categorical(["x", "y", "x"]),
            "codes": pd.Categorical([3, 1, 3]),
            "money": [Decimal("19.99"), None, Decimal("0.1")],
            "arrow": pd.array([2**60, 1, 2], dtype=pd.ArrowDtype(pa.int64())),
            "arrow_money": pd.array([Decimal("1.50")] * 3, dtype=pd.ArrowDtype(pa.decimal128(10, 2))),
        }
    )
    frame.to_parquet(tmp_path / "rows.parquet")
    for columns in (to_arrays(frame)[0], read_data(tmp_path / "rows.parquet")):
        np.testing.assert_array_equal(columns["nullable"], [1.0, np.nan, 2.0**40])
        np.testing.assert_array_equal(columns["truth"], [1.0, np.nan, 0.0])
        assert columns["text"].tolist() == ["a", "", "c"]
        assert columns["category"].tolist() == ["x", "y", "x"]
        assert columns["codes"].tolist() == [3, 1, 3]
        np.testing.assert_array_equal(columns["money"], [19.99, np.nan, 0.1])
        assert columns["arrow"].tolist() == [2**60, 1, 2]
        assert columns["arrow_money"].tolist() == [1.5, 1.5, 1.5]


def test_dates_are_refused_by_name_where_the_model_reads_them_and_the_remedy_works():
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": pd.to_datetime(["2020-01-01", "2021-01-01"])})
    with pytest.raises(DataError, match=r"column 'b' holds dates.*total_seconds"):
        fit_data(to_arrays(frame)[0], MATRIX, "a data frame")
    frame["b"] = (frame["b"] - pd.Timestamp(0)).dt.total_seconds()
    assert fit_data(to_arrays(frame)[0], MATRIX, "a data frame", as_they_came=True)[0]["X"][0, 1] == 1_577_836_800
    spare = pd.DataFrame({"a": [1.0], "b": [2.0], "when": pd.to_timedelta([3], unit="s")})
    assert fit_data(to_arrays(spare)[0], MATRIX, "a data frame")[0]["X"].tolist() == [[1.0, 2.0]]


def test_a_column_that_is_no_number_and_no_text_is_named_where_the_model_reads_it():
    columns = to_arrays(pd.DataFrame({"a": [1.0], "b": [{"k": 1}]}))[0]
    with pytest.raises(DataError, match=r"column 'b' \(object\).*neither numbers nor text"):
        fit_data(columns, MATRIX, "a data frame")


UNREAD = {
    "dates": pd.to_datetime(["2020-01-01", "2021-01-01"]),
    "dates of a zone": pd.to_datetime(["2020-01-01", "2021-01-01"]).tz_localize("Europe/Oslo"),
    "durations": pd.to_timedelta([1, 2], unit="h"),
    "days": [date(2020, 1, 1), None],
    "periods": pd.period_range("2020-01", periods=2, freq="M"),
    "intervals": pd.interval_range(0, 2),
    "mappings": [{"k": 1}, {"k": 2}],
    "mixed": [1, "x"],
    "complex": [1j, 2.0],
    "whole numbers beyond 64 bits": [10**25, 1],
    "nothing": [None, None],
    "lists of unequal lengths": [[1.0], [1.0, 2.0]],
    "Arrow's dictionary": pd.array(
        pa.array(["x", "y"]).dictionary_encode(), dtype=pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))
    ),
    "Arrow's days": pd.array([date(2020, 1, 1), None], dtype=pd.ArrowDtype(pa.date32())),
    "Arrow's structs": pd.array([{"k": 1}, None], dtype=pd.ArrowDtype(pa.struct([("k", pa.int64())]))),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_a_column_that_the_model_does_not_read_refuses_no_rows(kind, tmp_path):
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0], "c": UNREAD[kind]})
    written = []
    for name, write in (
        ("csv", partial(frame.to_csv, index=False)),
        ("parquet", frame.to_parquet),
        ("json", partial(frame.to_json, orient="records", date_format="iso")),
    ):
        with suppress(
            pa.ArrowException, ArithmeticError, TypeError, ValueError, NotImplementedError
        ):  # pandas cannot write it
            write(tmp_path / name)
            written.append(tmp_path / name)
    assert tmp_path / "csv" in written
    for data in (frame, *written):
        columns = to_arrays(data)[0]
        message = BytesIO()
        send(message, None, columns)  # as rows reach the confined process
        message.seek(0)
        for received in (columns, receive(message)[1]):
            assert fit_data(received, MATRIX, "rows")[0]["X"].tolist() == [[1.0, 3.0], [2.0, 4.0]]
    for path in written:
        for block in stream_data(path, rows=1):
            assert len(block["c"]) == len(block["a"])


def test_a_source_that_takes_any_number_gets_the_rows_as_they_came():
    data = {"a": np.array([2**53 - 1, 2]), "b": np.array([0.1, 4.0])}
    separate = [TensorSpec("a", "float32", ("batch", 1)), TensorSpec("b", "float32", ("batch", 1))]
    tensors, notes = fit_data(data, separate, "rows.csv", as_they_came=True)
    assert tensors["a"].dtype == np.int64
    assert tensors["b"].dtype == np.float64
    assert notes == []
    matrix, _ = fit_data(data, MATRIX, "rows.csv", as_they_came=True)
    assert matrix["X"].tolist() == [[2.0**53 - 1, 0.1], [2.0, 4.0]]


def test_an_unnamed_array_fits_a_single_input_only():
    x = np.ones((3, 2), np.float32)
    assert fit_data({UNNAMED: x}, MATRIX, "x.npy")[0]["X"] is not None
    with pytest.raises(DataError, match="age"):
        fit_data({UNNAMED: x}, COLUMNS, "x.npy")


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({"age": np.ones(2)}, "city"),
        ({"age": np.ones(2), "city": np.ones(2)}, "string"),
        ({"age": np.array(["old", "young"], object), "city": np.array(["a", "b"], object)}, "string"),
        ({"age": np.ones((2, 3)), "city": np.array(["a", "b"], object)}, r"\[2, 3\]"),
        ({"age": np.ones(3), "city": np.array(["a", "b"], object)}, "number of rows"),
        ({"age": np.ones(0), "city": np.array([], object)}, "no rows"),
    ],
)
def test_a_mismatch_shows_both_sides(data, shown):
    with pytest.raises(DataError, match=shown):
        fit_data(data, COLUMNS, "rows.npz")


def test_numbers_convert_only_without_loss():
    spec = (TensorSpec("n", "int32", ("batch",)),)
    assert fit_data({"n": np.array([1.0, 2.0])}, spec, "d")[0]["n"].dtype == np.int32
    for lossy in (np.array([1.5]), np.array([2**40]), np.array([np.nan])):
        with pytest.raises(DataError, match="without loss"):
            fit_data({"n": lossy}, spec, "d")


def test_text_that_looks_like_numbers_stays_text(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("age,city\n31,0123\n42,4567\n")
    tensors, _ = fit_data(read_data(path), COLUMNS, str(path))
    assert tensors["city"].tolist() == [["0123"], ["4567"]]


def test_missing_numbers_stay_missing(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("age,city\n,Oslo\n42,\n")
    tensors, _ = fit_data(read_data(path), COLUMNS, str(path))
    assert np.isnan(tensors["age"][0, 0])
    assert tensors["city"][1, 0] == ""


def test_live_objects_are_taken_as_they_are(frame):
    assert set(to_arrays(frame)[0]) == {"age", "city", "note"}
    assert set(to_arrays({"x": [[1.0]]})[0]) == {"x"}
    assert set(to_arrays(np.ones(3))[0]) == {UNNAMED}
    with pytest.raises(DataError, match="neither numbers nor text"):
        to_arrays({"x": np.array([object()])})
