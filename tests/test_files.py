import os
import stat

import pytest

from onnxtool.errors import ModelError, OutputError
from onnxtool.files import check_writable, staged_path, write_text


def test_a_result_replaces_the_old_file_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("old")
    write_text(target, "new")
    assert target.read_text() == "new"
    assert names(tmp_path) == ["out.txt"]
    assert stat.S_IMODE(target.stat().st_mode) & 0o044 == 0o044 & ~_umask()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError])
def test_an_interruption_leaves_the_old_file(tmp_path, error):
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(error), staged_path(target) as staged:
        staged.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["out.txt"]


def test_all_files_of_a_result_arrive(tmp_path):
    with staged_path(tmp_path / "model.onnx") as staged:
        staged.write_text("graph")
        weights = staged.parent / "model.onnx.data"
        weights.write_text("weights")
        weights.chmod(0o600)
    assert (tmp_path / "model.onnx.data").stat().st_mode == (tmp_path / "model.onnx").stat().st_mode
    assert names(tmp_path) == ["model.onnx", "model.onnx.data"]


def test_what_cannot_be_written_is_reported_before(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        check_writable(tmp_path / "no" / "out.txt")
    with pytest.raises(OutputError, match="is a folder"):
        check_writable(tmp_path)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_error_names_the_file_that_the_user_knows(tmp_path):
    target = tmp_path / "m.onnx"
    with pytest.raises(ModelError) as raised, staged_path(target) as staged:
        raise ModelError(f"ONNX Runtime fails to run {staged}: why")
    assert str(raised.value) == f"ONNX Runtime fails to run {target}: why"
