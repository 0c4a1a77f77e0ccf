import numpy as np
import pandas as pd
import pytest

from onnxtool.errors import DataError
from onnxtool.models.rows import stream
from onnxtool.models.rows.data import read_data
from onnxtool.models.rows.stream import single_column, stream_data

ROWS = 1000


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 90, ROWS),
            "income": np.where(rng.random(ROWS) < 0.1, np.nan, rng.normal(size=ROWS)),
            "city": rng.choice(["Bern", "", "Zoë"], ROWS),
        }
    )


def write(frame, path):
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path, row_group_size=170)
    elif path.suffix == ".json":
        frame.to_json(path, orient="records")
    elif path.suffix == ".npz":
        np.savez_compressed(
            path,
            age=frame["age"],
            matrix=np.ascontiguousarray(frame[["age", "income"]]),
            city=frame["city"].to_numpy().astype("U"),
        )
    else:
        np.save(path, np.ascontiguousarray(frame[["age", "income"]]))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json", ".npz", ".npy"])
@pytest.mark.parametrize("rows", [27, 64, 333, ROWS, 10 * ROWS])
def test_blocks_are_the_whole(frame, tmp_path, suffix, rows):
    path = write(frame, tmp_path / f"rows{suffix}")
    blocks = list(stream_data(path, rows=rows))
    whole = read_data(path)
    assert suffix == ".json" or max(len(next(iter(block.values()))) for block in blocks) <= rows
    for name, array in whole.items():
        joined = np.concatenate([block[name] for block in blocks])
        np.testing.assert_array_equal(joined, array)
        assert joined.dtype.kind == array.dtype.kind


def test_text_that_looks_like_numbers_stays_text(tmp_path):
    path = tmp_path / "codes.csv"
    path.write_text("code\n" + "01\n" * 10)
    assert {value for block in stream_data(path, ["code"], rows=3) for value in block["code"]} == {"01"}


def test_what_cannot_be_cut_comes_whole(tmp_path):
    np.savez(tmp_path / "uneven.npz", x=np.ones((5, 2)), scale=np.ones(3))
    np.save(tmp_path / "columns.npy", np.asfortranarray(np.arange(12.0).reshape(4, 3)))
    assert [block["x"].shape for block in stream_data(tmp_path / "uneven.npz", rows=2)] == [(5, 2)]
    (block,) = stream_data(tmp_path / "columns.npy", rows=2)
    np.testing.assert_array_equal(block[""], np.arange(12.0).reshape(4, 3))


def test_a_file_cut_short_is_an_error(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.ones((100, 4)))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match="cut short"):
        list(stream_data(path, rows=30))
    (tmp_path / "late.csv").write_text("a,b\n" + "1,2\n" * 50 + "1,2,3,4\n")
    with pytest.raises(DataError, match="cannot be read"):
        list(stream_data(tmp_path / "late.csv", rows=10))


def test_objects_are_refused(tmp_path):
    np.save(tmp_path / "evil.npy", np.array([object()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError):
        list(stream_data(tmp_path / "evil.npy"))


def test_a_column_is_taken_in_pieces(tmp_path, monkeypatch):
    path = tmp_path / "labels.csv"
    path.write_text("y\n" + "".join(f"{row}\n" for row in range(10)))
    column = single_column(path)
    assert [column.take(n).tolist() for n in (4, 0, 3)] == [[0, 1, 2, 3], [], [4, 5, 6]]
    assert column.rest() == 3
    path.write_text("y,z\n1,2\n")
    with pytest.raises(DataError, match="keep one alone"):
        single_column(path)


def test_blocks_of_large_rows_have_fewer(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "BLOCK_BYTES", 1000)
    x, y = np.arange(600, dtype=np.float32).reshape(10, 60), np.arange(10)  # 248 bytes a row
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    blocks = list(stream_data(tmp_path / "rows.npz"))
    assert [len(block["x"]) for block in blocks] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([block["x"] for block in blocks]), x)
    np.save(tmp_path / "rows.npy", np.zeros((3, 1000)))  # more than a block each
    assert [len(block[""]) for block in stream_data(tmp_path / "rows.npy")] == [1, 1, 1]
