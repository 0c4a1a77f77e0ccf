"""Each promise is kept or reported, before the file is opened: on this kernel, and as on one that keeps less."""

import json
import os
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
from sklearn.linear_model import LogisticRegression

import onnxtool
from onnxtool.errors import SourceError, UsageError
from onnxtool.sandbox.launch import lacks
from onnxtool.sandbox.promises import FILES, NETWORK, PROMISES

WITHOUT = Path(__file__).with_name("without.py")
CLI = Path(sys.executable).with_name("onnxtool")
LACKING = {"landlock": [FILES], "both": [FILES, NETWORK]}

linux = pytest.mark.skipif(sys.platform != "linux", reason="the filter that takes Landlock away is Linux's")


def run(folder, kernel, *command):
    return subprocess.run(
        [sys.executable, WITHOUT, kernel, *map(str, command)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.joblib"
    joblib.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), path)
    return path


@pytest.fixture(scope="module")
def marking(tmp_path_factory):
    """A trusted source that leaves a mark in its folder, if it can, when it is opened."""
    folder = tmp_path_factory.mktemp("marking")

    class Own:
        def __reduce__(self):
            return os.mkdir, (str(folder / "mark"),)

    joblib.dump(Own(), folder / "m.joblib")
    return folder


SCRIPT = """
import logging, sys
import onnxtool
logging.basicConfig(format="%(message)s")
try:
    print(bool(onnxtool.convert(sys.argv[1], "m.onnx", **eval(sys.argv[2]))))
except onnxtool.OnnxtoolError as error:
    print(type(error).__name__, error)
"""


@linux
@pytest.mark.parametrize("kernel", LACKING)
def test_missing_protection_is_reported_before_the_file_is_opened_and_in_the_report(model, tmp_path, kernel):
    done = run(tmp_path, kernel, CLI, "convert", model, "-o", "m.onnx", "--json", "report.json")
    assert done.returncode == 0, done.stderr
    assert f"opened in a sandbox that is incomplete here: {'; '.join(LACKING[kernel])}." in done.stderr
    notes = json.loads((tmp_path / "report.json").read_text())["subjects"][0]["parity"]["notes"]
    assert {f"The source was not wholly confined: {lack}." for lack in LACKING[kernel]} <= set(notes)
    damaged = tmp_path / "damaged.joblib"
    damaged.write_bytes(b"\x80\x04" + model.read_bytes()[2:90])
    done = run(tmp_path, kernel, CLI, "convert", damaged)
    assert done.stderr.index("incomplete here") < done.stderr.index("damaged, or saved")


@linux
@pytest.mark.parametrize("kernel", LACKING)
def test_required_promises_that_are_not_kept_refuse_the_file(marking, tmp_path, kernel):
    trust = ["--trust", "posix.mkdir"]
    done = run(tmp_path, kernel, CLI, "convert", marking / "m.joblib", "--sandbox=require", *trust)
    assert done.returncode == 2
    assert "was not opened. The sandbox is incomplete here: it could not be kept from this user's" in done.stderr
    options = "{'sandbox': 'require', 'trust': ['posix.mkdir']}"
    done = run(tmp_path, kernel, sys.executable, "-c", SCRIPT, marking / "m.joblib", options)
    assert done.stdout.startswith("SourceError") and "was not opened" in done.stdout
    assert not (marking / "mark").exists()


@linux
def test_bench_measures_no_source_that_is_refused(model, tmp_path):
    onnxtool.convert(model, tmp_path / "m.onnx", sandbox=None)
    done = run(tmp_path, "landlock", CLI, "bench", "m.onnx", "--source", model, "--sandbox=require")
    assert done.returncode == 2
    assert "was not opened" in done.stderr


@pytest.mark.skipif(bool(lacks()), reason="this system does not keep every promise")
def test_required_promises_that_are_kept_let_it_be_opened(model, tmp_path, caplog):
    assert onnxtool.convert(model, tmp_path / "m.onnx", sandbox="require")
    assert onnxtool.convert(model, tmp_path / "m.onnx", sandbox=onnxtool.Limits(require=True))
    assert "incomplete" not in caplog.text


def test_python_opens_paths_in_the_sandbox_and_live_objects_in_this_process(marking, tmp_path):
    """The mark is made only where the user turns the sandbox off."""
    with pytest.raises(SourceError, match="Permission denied"):
        onnxtool.convert(marking / "m.joblib", tmp_path / "m.onnx", trust=["posix.mkdir"])
    assert onnxtool.convert(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), tmp_path / "live.onnx")
    with pytest.raises(SourceError, match="Permission denied"):
        onnxtool.verify(tmp_path / "live.onnx", marking / "m.joblib", trust=["posix.mkdir"])
    with pytest.raises(SourceError, match="Permission denied"):
        onnxtool.bench(tmp_path / "live.onnx", source=str(marking / "m.joblib"), trust=["posix.mkdir"])
    with pytest.raises(SourceError, match="Permission denied"):
        onnxtool.bundle(tmp_path / "live.onnx", marking / "m.joblib", tmp_path / "b", trust=["posix.mkdir"])
    assert not (marking / "mark").exists()


def test_the_fixtures_of_pytest_open_paths_in_the_sandbox(marking, onnx_parity, tmp_path):
    onnxtool.convert(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), tmp_path / "live.onnx")
    with pytest.raises(SourceError, match="Permission denied"):
        onnx_parity(tmp_path / "live.onnx", marking / "m.joblib", trust=["posix.mkdir"])
    assert not (marking / "mark").exists()


@linux
def test_doctor_shows_each_promise_kept_or_not(tmp_path):
    done = run(tmp_path, "landlock", CLI, "doctor", "--json")
    lack = {name for name, held in json.loads(done.stdout)["promises"].items() if not held}
    assert lack == {name for name, text in PROMISES.items() if text == FILES}
    shown = run(tmp_path, "landlock", CLI, "doctor").stdout
    assert "no other files, no programs: NOT KEPT" in shown
    assert "no network: kept" in shown


def test_off_and_required_contradict_each_other(model):
    done = subprocess.run(
        [CLI, "convert", model, "--sandbox=require", "--no-sandbox"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "contradict" in done.stderr) == (2, True)


def test_a_word_that_is_no_sandbox_is_refused(model, tmp_path):
    with pytest.raises(UsageError, match="require"):
        onnxtool.convert(model, tmp_path / "m.onnx", sandbox="required")


def test_a_class_of_the_users_own_program_is_reported_as_missing_in_the_sandbox(tmp_path):
    save = "import pickle\nclass Own: pass\npickle.dump(Own(), open('m.pkl', 'wb'))"
    subprocess.run([sys.executable, "-c", save], cwd=tmp_path, check=True)
    with pytest.raises(SourceError, match=r"name that with --code, as in --code train\.py"):
        onnxtool.convert(tmp_path / "m.pkl", tmp_path / "m.onnx", trust=["__main__.Own"])
